//! See `dlock_fuzz::document`.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| dlock_fuzz::document(data));

#[cfg(not(fuzzing))]
fn main() {
    eprintln!("a target of cargo-fuzz: see fuzz/README.md");
}
