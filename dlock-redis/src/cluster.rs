//! The map of a Redis Cluster: which node serves which hash slot.
//!
//! The client library has a cluster client of its own. It is not used, because it sends a command
//! again by itself when a connection breaks: a late first copy could then make a claim after the
//! second one was answered and withdrawn, which nobody would withdraw any more (ONCE). It also
//! repeats TRYAGAIN up to 16 times before it tells. So redirections alone are followed here; they
//! say that nothing was done.

use redis::{RedisError, Value};

use crate::options::Address;

/// The map, as one node told it, corrected by what others said since.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Map(Vec<Range>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Range {
    first: u16,
    last: u16,
    master: Address,
}

impl Map {
    /// Reads the reply to `CLUSTER SLOTS`. A node that does not know its own name leaves it out;
    /// it is the one that was asked then.
    pub(crate) fn parse(reply: Value, asked: &Address) -> Option<Self> {
        let Value::Array(ranges) = reply else {
            return None;
        };
        let ranges = ranges.into_iter().map(|range| {
            let Value::Array(range) = range else {
                return None;
            };
            let [
                Value::Int(first),
                Value::Int(last),
                Value::Array(master),
                ..,
            ] = &range[..]
            else {
                return None;
            };
            let [host, Value::Int(port), ..] = &master[..] else {
                return None;
            };
            let host = match host {
                Value::BulkString(host) => String::from_utf8(host.clone()).ok()?,
                _ => String::new(),
            };
            Some(Range {
                first: u16::try_from(*first).ok()?,
                last: u16::try_from(*last).ok()?,
                master: Address {
                    host: known(&host, asked),
                    port: u16::try_from(*port).ok()?,
                },
            })
        });
        ranges.collect::<Option<Vec<_>>>().map(Self)
    }

    pub(crate) fn master(&self, slot: u16) -> Option<&Address> {
        // What was put in last counts.
        self.0
            .iter()
            .rev()
            .find(|range| (range.first..=range.last).contains(&slot))
            .map(|range| &range.master)
    }

    pub(crate) fn moved(&mut self, slot: u16, master: Address) {
        self.0
            .retain(|range| (range.first, range.last) != (slot, slot));
        self.0.push(Range {
            first: slot,
            last: slot,
            master,
        });
    }

    /// All masters, each once.
    pub(crate) fn masters(&self) -> Vec<Address> {
        let mut all: Vec<Address> = self.0.iter().map(|range| range.master.clone()).collect();
        all.sort();
        all.dedup();
        all
    }
}

/// Where `MOVED` or `ASK` sends to.
pub(crate) fn redirection(fault: &RedisError, asked: &Address) -> Option<Address> {
    let (to, _) = fault.redirect_node()?;
    let (host, port) = to.rsplit_once(':')?;
    Some(Address {
        host: known(host, asked),
        port: port.parse().ok()?,
    })
}

fn known(host: &str, asked: &Address) -> String {
    if host.is_empty() || host == "?" {
        asked.host.clone()
    } else {
        host.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> Address {
        Address {
            host: host.into(),
            port,
        }
    }

    fn slots(first: i64, last: i64, host: Value, port: i64) -> Value {
        let node = Value::Array(vec![host, Value::Int(port), Value::BulkString("id".into())]);
        Value::Array(vec![Value::Int(first), Value::Int(last), node])
    }

    #[test]
    fn reads_the_map_and_learns_from_redirections() {
        let asked = at("seed", 1);
        let reply = Value::Array(vec![
            slots(0, 99, Value::BulkString("a".into()), 2),
            slots(100, 16_383, Value::Nil, 3),
        ]);
        let mut map = Map::parse(reply, &asked).unwrap();
        assert_eq!(map.master(99), Some(&at("a", 2)));
        assert_eq!(map.master(100), Some(&at("seed", 3)));
        for port in [4, 5] {
            map.moved(100, at("b", port));
            assert_eq!(map.master(100), Some(&at("b", port)));
        }
        assert_eq!(map.master(101), Some(&at("seed", 3)));
        assert_eq!(map.masters(), [at("a", 2), at("b", 5), at("seed", 3)]);
        assert_eq!(Map::parse(Value::Nil, &asked), None);
        assert_eq!(Map::default().master(0), None);
    }

    #[test]
    fn reads_where_a_redirection_points() {
        for (line, expected) in [
            ("MOVED 1 h:7", Some(at("h", 7))),
            ("ASK 1 :7", Some(at("seed", 7))),
            ("MOVED 1 ::1:7", Some(at("::1", 7))),
            ("TRYAGAIN x", None),
        ] {
            let fault = redis::parse_redis_value(format!("-{line}\r\n").as_bytes())
                .and_then(Value::extract_error)
                .unwrap_err();
            assert_eq!(redirection(&fault, &at("seed", 1)), expected, "{line}");
        }
    }
}
