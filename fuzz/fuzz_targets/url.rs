//! See `dlock_fuzz::url`.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| dlock_fuzz::url(data));

#[cfg(not(fuzzing))]
fn main() {
    eprintln!("a target of cargo-fuzz: see fuzz/README.md");
}
