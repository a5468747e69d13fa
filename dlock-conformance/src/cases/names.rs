//! FAIR: names that differ never conflict, however a store encodes them.

use std::collections::HashSet;

use dlock_core::{LockName, Mode};

use crate::case::Case;
use crate::scene::{LIMIT, Scene};
use crate::{Failure, Verdict, ensure};

pub(super) fn cases() -> Vec<Case> {
    vec![Case::new(
        "FAIR/names-that-try-to-collide",
        "Names that a store could mistake for one another are different locks, listed and seen as such",
        collide,
    )]
}

/// Names that begin or end with this prefix, and that somebody's encoding could confuse.
fn odd_names(prefix: &str) -> Vec<String> {
    let long = |last: &str| {
        format!(
            "{prefix}{}{last}",
            "x".repeat(512 - prefix.len() - last.len())
        )
    };
    let mut names: Vec<String> = [
        "a",
        "A",
        "a/b",
        "a/",
        "/a",
        "a//b",
        "a:b",
        "a.b",
        "a b",
        " a",
        "a ",
        "a\tb",
        "a\nb",
        "a\r\nb",
        "{a}",
        "{a",
        "a}",
        "{}",
        "}{",
        "{a}{b}",
        "*",
        "a*",
        "?",
        "[a]",
        "\\",
        "a\\",
        "%61",
        "a%2Fb",
        "a%00",
        "'",
        "\"",
        "a\"b",
        "$a",
        "a-b",
        "a_b",
        "a|b",
        "a,b",
        "a;b",
        "\u{7f}",
        // Composed and decomposed, and look-alikes.
        "\u{fc}",
        "u\u{308}",
        "\u{df}",
        "ss",
        "\u{430}",
        "\u{1f512}",
        "\u{200b}",
        "\u{feff}",
    ]
    .map(|odd| format!("{prefix}{odd}"))
    .to_vec();
    names.extend([
        prefix.to_owned(),
        format!("{{{prefix}}}"),
        format!("{{{prefix}}}a"),
        format!("a{{{prefix}}}"),
        format!("{prefix}:{prefix}"),
        // The prefix may have no letters.
        prefix.to_uppercase() + "-upper",
        prefix.to_lowercase() + "-lower",
        long("1"),
        long("2"),
        long("\u{fc}"),
    ]);
    names
}

async fn collide(scene: Scene) -> Verdict {
    let names = odd_names(scene.prefix());
    let distinct: HashSet<&String> = names.iter().collect();
    ensure!(distinct.len() == names.len(), "the case names a lock twice");
    let (holder, other) = (scene.client("holder").await?, scene.client("other").await?);
    let mut held = Vec::new();
    for name in &names {
        let taken = || Failure::new(format!("{name:?} conflicts with another name"));
        held.push(
            holder
                .try_lock(name, Mode::Exclusive)
                .await?
                .ok_or_else(taken)?,
        );
    }
    let listed = other.client().names().await?;
    for (name, held) in names.iter().zip(&held) {
        let seen = other.client().inspect(name).await?;
        let tokens: Vec<_> = seen.holders.iter().map(|claim| claim.token).collect();
        ensure!(
            seen.name.as_str() == name
                && tokens == [Some(held.token()?)]
                && seen.waiters.is_empty(),
            "{name:?} shows {seen:?}"
        );
        let count = listed
            .iter()
            .filter(|listed| listed.as_str() == name)
            .count();
        ensure!(count == 1, "{name:?} is listed {count} times");
        let tried = other.try_lock(name, Mode::Exclusive).await?;
        ensure!(tried.is_none(), "{name:?} is held, and was granted again");
    }
    let ours: HashSet<&str> = names.iter().map(String::as_str).collect();
    let mine = |listed: &&LockName| {
        listed
            .as_str()
            .to_lowercase()
            .contains(&*scene.prefix().to_lowercase())
    };
    if let Some(strange) = listed
        .iter()
        .filter(mine)
        .find(|name| !ours.contains(name.as_str()))
    {
        return Err(Failure::new(format!(
            "{strange:?} is listed, and nobody took it"
        )));
    }
    // Each is freed under its own name, and no other with it.
    let mut held: Vec<_> = names.iter().zip(held).collect();
    while let Some((name, guard)) = held.pop() {
        guard.release().await?;
        scene.until_free(other.client(), name, LIMIT).await?;
        if let Some((next, _)) = held.last() {
            let seen = other.client().inspect(next.as_str()).await?;
            ensure!(seen.holders.len() == 1, "releasing {name:?} freed {next:?}");
        }
    }
    Ok(())
}
