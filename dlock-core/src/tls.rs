//! [`Tls`]: how a server proves who it is, the same for every store that is reached over TLS.

use std::fs;
use std::path::{Path, PathBuf};

use crate::ConfigError;
use crate::url::StoreUrl;

/// How the server proves who it is, and the client too if the server asks. Files are PEM, and are
/// read when connecting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Tls {
    ca: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
}

impl Tls {
    /// Trusts the operating system's certificate authorities.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the certificate authorities in this file, and no others.
    pub fn ca(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca = Some(file.into());
        self
    }

    /// Shows the server the client's own certificate.
    pub fn identity(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some((certificate.into(), key.into()));
        self
    }

    /// The file of the certificate authorities, if not the operating system's are trusted.
    #[must_use]
    pub fn ca_file(&self) -> Option<&Path> {
        self.ca.as_deref()
    }

    /// The files of the client's certificate and of its key.
    #[must_use]
    pub fn identity_files(&self) -> Option<(&Path, &Path)> {
        let (certificate, key) = self.identity.as_ref()?;
        Some((certificate, key))
    }

    /// Takes the options `ca`, `cert` and `key` of a store URL. `encrypted` is the scheme with TLS of
    /// the same store; `None` comes back when the URL's scheme is another one.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when one of them is given on a scheme without TLS, or a certificate without
    /// its key.
    pub fn from_url(url: &mut StoreUrl, encrypted: &str) -> Result<Option<Self>, ConfigError> {
        let (ca, certificate, key) = (url.take("ca"), url.take("cert"), url.take("key"));
        let given = [("ca", &ca), ("cert", &certificate), ("key", &key)];
        if url.scheme() != encrypted {
            return match given.iter().find(|(_, value)| value.is_some()) {
                None => Ok(None),
                Some((option, _)) => Err(ConfigError::new(
                    format!("option {option}"),
                    format!("{}:// does not encrypt", url.scheme()),
                    format!("write {encrypted}://, or leave it out"),
                )),
            };
        }
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
            (None, None) => None,
            _ => {
                return Err(ConfigError::new(
                    "options cert and key",
                    "one of them is missing",
                    "give both, or neither",
                ));
            }
        };
        Ok(Some(Self {
            ca: ca.map(PathBuf::from),
            identity,
        }))
    }

    /// The content of one of the files; `option` is what the user calls it: `ca`, `cert` or `key`.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] that names the option and the file, when it cannot be read.
    pub fn read(option: &str, file: &Path) -> Result<Vec<u8>, ConfigError> {
        fs::read(file).map_err(|fault| Self::unreadable(option, file, fault))
    }

    /// The error of a file that is missing, or holds something else than it should.
    pub fn unreadable(option: &str, file: &Path, fault: impl std::fmt::Display) -> ConfigError {
        ConfigError::new(
            format!("option {option}"),
            format!("{}: {fault}", file.display()),
            "it is a file in PEM form that this process may read",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<Option<Tls>, ConfigError> {
        Tls::from_url(&mut StoreUrl::parse(url).unwrap(), "rediss")
    }

    #[test]
    fn its_options_need_a_scheme_that_encrypts() {
        assert_eq!(read("redis://h").unwrap(), None);
        assert_eq!(read("rediss://h").unwrap(), Some(Tls::new()));
        let all = Tls::new().ca("a.pem").identity("c.pem", "k.pem");
        let url = "rediss://h?ca=a.pem&cert=c.pem&key=k.pem";
        assert_eq!(read(url).unwrap(), Some(all));
        for (url, named) in [
            ("redis://h?ca=a.pem", "rediss://"),
            ("rediss://h?cert=c.pem", "both"),
            ("rediss://h?key=k.pem", "both"),
        ] {
            let error = read(url).unwrap_err().to_string();
            assert!(error.contains(named), "{url}: {error}");
        }
    }

    #[test]
    fn a_missing_file_is_named_with_its_option() {
        let error = Tls::read("ca", Path::new("/nowhere/ca.pem")).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("option ca") && error.contains("/nowhere/ca.pem"),
            "{error}"
        );
    }
}
