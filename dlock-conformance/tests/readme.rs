//! The support matrix in the README is the one that the suite prints.

use std::process::Command;

#[test]
fn the_readme_has_the_support_matrix() {
    let printed = Command::new(env!("CARGO_BIN_EXE_dlock-conformance"))
        .arg("matrix")
        .output();
    let printed = String::from_utf8(printed.unwrap().stdout).unwrap();
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"));
    let readme = readme.unwrap();
    let (_, rest) = readme.split_once("<!-- matrix -->\n").unwrap();
    let (written, _) = rest.split_once("<!-- /matrix -->").unwrap();
    assert!(printed.lines().count() > 3);
    assert_eq!(
        written.trim(),
        printed.trim(),
        "`dlock-conformance matrix` prints the right one"
    );
}
