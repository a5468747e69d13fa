//! Which versions of etcd keep locks safely.

/// A version of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(u32, u32, u32);

/// What is to be thought of a server of some version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Good,
    /// It works, but has a fault that its users should know of.
    Faulty(&'static str),
    TooOld,
}

/// Faults that matter to locks, from etcd's change logs: in which patch of 3.5 and of 3.6 each was
/// repaired. The gravest come first.
const FAULTS: [(u32, u32, &str); 5] = [
    (
        13,
        0,
        "before etcd 3.5.13 a former leader may revoke leases that are in use, and watches lose events",
    ),
    (
        17,
        0,
        "before etcd 3.5.17 a transaction may be applied in part",
    ),
    (
        18,
        0,
        "before etcd 3.5.18 a watch may miss that a key was deleted",
    ),
    (
        23,
        5,
        "before etcd 3.5.23 and 3.6.5 a lease that was revoked may be renewed with success",
    ),
    (
        28,
        9,
        "before etcd 3.5.28 and 3.6.9 a paused member may answer with old data, and what a transaction \
         holds inside another is not checked against a user's permissions",
    ),
];

impl Version {
    /// Reads `3.5.30`, with anything behind a `-` or a `+`.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let core = text.split(['-', '+']).next()?;
        let mut parts = core.split('.').map(str::parse);
        let version = Self(
            parts.next()?.ok()?,
            parts.next()?.ok()?,
            parts.next()?.ok()?,
        );
        parts.next().is_none().then_some(version)
    }

    pub(crate) fn verdict(self) -> Verdict {
        let Self(major, minor, patch) = self;
        if (major, minor) < (3, 5) {
            return Verdict::TooOld;
        }
        let has = |(in_3_5, in_3_6, _): &&(u32, u32, &str)| match (major, minor) {
            (3, 5) => patch < *in_3_5,
            (3, 6) => patch < *in_3_6,
            _ => false,
        };
        let fault = FAULTS.iter().find(has);
        fault.map_or(Verdict::Good, |(_, _, why)| Verdict::Faulty(why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_gets_the_gravest_of_its_faults() {
        let verdict = |text| Version::read(text).unwrap().verdict();
        for old in ["2.3.8", "3.4.44", "3.0.0"] {
            assert_eq!(verdict(old), Verdict::TooOld, "{old}");
        }
        for good in ["3.5.28", "3.5.30", "3.6.9", "3.6.16", "3.7.0", "4.0.0"] {
            assert_eq!(verdict(good), Verdict::Good, "{good}");
        }
        for (faulty, part) in [
            ("3.5.0", "3.5.13"),
            ("3.5.16", "3.5.17"),
            ("3.5.17", "3.5.18"),
            ("3.5.22", "3.5.23"),
            ("3.5.27", "3.5.28"),
            ("3.6.0", "3.6.5"),
            ("3.6.8", "3.6.9"),
        ] {
            let Verdict::Faulty(why) = verdict(faulty) else {
                panic!("{faulty}: {:?}", verdict(faulty));
            };
            assert!(why.contains(part), "{faulty}: {why}");
        }
    }

    #[test]
    fn it_reads_what_servers_say_of_themselves() {
        assert_eq!(Version::read("3.6.0-rc.1+git"), Some(Version(3, 6, 0)));
        for bad in ["", "3", "3.5", "v3.5.1", "3.5.x", "3.5.1.2"] {
            assert_eq!(Version::read(bad), None, "{bad}");
        }
    }
}
