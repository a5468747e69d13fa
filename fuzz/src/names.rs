//! Names of locks and namespaces, and the keys that they have in the stores.

use dlock_core::{Claim, ClaimId, LockName, Mode, Namespace, Owner, SessionId};

/// A name is what the contract says, reads back from its key on every store, and shares none with
/// another name; a key that nobody wrote is no name, or one.
pub fn names(data: &[u8]) {
    let mut parts = data.splitn(3, |byte| *byte == b'\n');
    let [namespace, one, two] = [(); 3].map(|()| crate::text(parts.next().unwrap_or_default()));
    let namespace = namespace_of(namespace);
    strange_keys(&namespace, one);
    let (one, two) = (name_of(one), name_of(two));
    for name in one.iter().chain(&two) {
        reads_back(&namespace, name);
    }
    if let (Some(one), Some(two)) = (one, two)
        && one != two
    {
        apart(&namespace, &one, &two);
    }
}

/// The namespace, or the default one where the text is none; another one never has its bucket.
fn namespace_of(text: &str) -> Namespace {
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    let allowed = (1..=64).contains(&text.len()) && text.chars().all(plain);
    let namespace = Namespace::new(text);
    assert_eq!(namespace.is_ok(), allowed, "{text:?}");
    let namespace = namespace.unwrap_or_default();
    let bucket = dlock_jetstream::fuzzing::bucket(&namespace);
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    assert!(bucket.chars().all(plain), "{bucket}");
    // The encoding is undone here by other means than it is done.
    let undone = bucket.replacen("dlock-", "", 1).replace("__", "\0");
    let undone = undone.replace("_d", ".").replace('\0', "_");
    assert_eq!(undone, namespace.as_str());
    namespace
}

fn name_of(text: &str) -> Option<LockName> {
    let allowed = (1..=512).contains(&text.len()) && !text.contains('\0');
    let name = LockName::new(text);
    assert_eq!(name.is_ok(), allowed, "{text:?}");
    match name {
        Ok(name) => {
            assert_eq!(name.as_str(), text);
            Some(name)
        }
        Err(error) => {
            let error = error.to_string();
            assert!(error.contains("1 to 512 bytes"), "{error}");
            None
        }
    }
}

fn claim(name: &LockName) -> Claim {
    Claim {
        id: ClaimId {
            session: SessionId::from(7),
            number: 1,
        },
        name: name.clone(),
        mode: Mode::ALL[name.as_str().len() % Mode::ALL.len()],
        owner: Owner::this_process(),
    }
}

fn reads_back(namespace: &Namespace, name: &LockName) {
    let subject = dlock_jetstream::fuzzing::subject(namespace, name);
    let known = |c: char| c.is_ascii_alphanumeric() || "$.-_/=".contains(c);
    assert!(subject.chars().all(known), "{subject}");
    // `$KV`, the bucket, `locks` and the name: no wildcard and no token more.
    assert_eq!(subject.split('.').count(), 4, "{subject}");
    let read = dlock_jetstream::fuzzing::name_of(namespace, &subject);
    assert_eq!(read.as_ref(), Some(name), "{subject}");

    let claim = claim(name);
    let key = dlock_etcd::fuzzing::key(namespace, &claim);
    let read = dlock_etcd::fuzzing::read(namespace, key.as_bytes());
    assert_eq!(read, Some((name.clone(), claim.mode, claim.id)), "{key}");

    let keys = dlock_redis::fuzzing::keys(namespace, PARTITIONS, name);
    let tags: Vec<&str> = keys.iter().map(|key| tag(key)).collect();
    assert!(tags.iter().all(|tag| *tag == tags[0]), "{keys:?}");
    let number = tags[0].strip_prefix(&format!("{namespace}."));
    let partition: Option<u32> = number.and_then(|number| number.parse().ok());
    assert!(partition.is_some_and(|it| it < PARTITIONS), "{keys:?}");
    let own = format!("dlock:{{{}}}:n:{name}", tags[0]);
    assert_eq!(keys.last(), Some(&own));
}

const PARTITIONS: u32 = 16;

/// What Redis Cluster hashes of a key: what stands between the first brace and the next that closes.
fn tag(key: &str) -> &str {
    let tag = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'));
    match tag {
        Some((tag, _)) if !tag.is_empty() => tag,
        _ => key,
    }
}

fn apart(namespace: &Namespace, one: &LockName, two: &LockName) {
    use dlock_jetstream::fuzzing::subject;
    assert_ne!(subject(namespace, one), subject(namespace, two));
    for (one, two) in [(one, two), (two, one)] {
        let key = dlock_etcd::fuzzing::key(namespace, &claim(one));
        let range = dlock_etcd::fuzzing::range(namespace, two);
        assert!(!key.starts_with(&range), "{key} is in {range}");
    }
    let [one, two] = [one, two].map(|name| dlock_redis::fuzzing::keys(namespace, PARTITIONS, name));
    // The first three belong to the partition.
    assert!(
        !one[3..].iter().any(|key| two.contains(key)),
        "{one:?} {two:?}"
    );
}

/// What somebody else may have put among the keys.
fn strange_keys(namespace: &Namespace, text: &str) {
    for key in [text.to_owned(), format!("{}{text}", prefix(namespace))] {
        if let Some(name) = dlock_jetstream::fuzzing::name_of(namespace, &key) {
            reads_back(namespace, &name);
        }
    }
    for key in [text.to_owned(), format!("dlock/{namespace}/locks/{text}")] {
        if let Some((name, ..)) = dlock_etcd::fuzzing::read(namespace, key.as_bytes()) {
            reads_back(namespace, &name);
        }
    }
}

fn prefix(namespace: &Namespace) -> String {
    let bucket = dlock_jetstream::fuzzing::bucket(namespace);
    format!("$KV.{bucket}.locks.")
}
