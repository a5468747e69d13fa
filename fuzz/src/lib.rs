//! The bodies of the fuzz targets: each takes any bytes, and panics when dlock is wrong about them.

mod document;
mod names;
mod url;

pub use document::document;
pub use names::names;
pub use url::url;

/// The bytes as text, as far as they are one.
fn text(data: &[u8]) -> &str {
    match std::str::from_utf8(data) {
        Ok(text) => text,
        Err(fault) => std::str::from_utf8(&data[..fault.valid_up_to()]).unwrap_or_default(),
    }
}
