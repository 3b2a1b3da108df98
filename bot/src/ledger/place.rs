//! Where a ledger is: SQLite's file in a directory, or a schema on a PostgreSQL server.
//!
//! Both have a directory, with the lock and the kill journal. A ledger on a server leaves a pointer there, so that the
//! directory names the ledger, whatever its kind.

use std::fmt;
use std::path::{Path, PathBuf};

use arbbot_crds::names::ledger_schema;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use uuid::Uuid;

use super::{FILE, LedgerError, file_error};

/// File in the ledger's directory that says where on a server it is.
const POINTER: &str = "postgres.json";
/// PostgreSQL cuts longer names.
const LONGEST_NAME: usize = 63;
/// A Secret is not longer.
const LONGEST_SECRET: usize = 1 << 20;

/// What names a ledger.
#[derive(Clone, Debug)]
pub enum Place {
    /// Directory of a bot's ledger, of either kind.
    Directory(PathBuf),
    Server(Server),
}

impl From<&Path> for Place {
    fn from(dir: &Path) -> Self {
        Self::Directory(dir.to_owned())
    }
}

impl From<&PathBuf> for Place {
    fn from(dir: &PathBuf) -> Self {
        Self::Directory(dir.clone())
    }
}

impl From<&Place> for Place {
    fn from(place: &Place) -> Self {
        place.clone()
    }
}

impl Place {
    /// Where the ledger's records are, for people.
    ///
    /// # Errors
    /// The directory's pointer cannot be read.
    pub fn shown(&self) -> Result<String, LedgerError> {
        self.source().map(|source| source.to_string())
    }

    pub(super) fn source(&self) -> Result<Source, LedgerError> {
        match self {
            Self::Server(server) => Ok(Source::Server(server.clone())),
            Self::Directory(path) if path.is_file() => Err(LedgerError::NotADirectory { path: path.clone() }),
            Self::Directory(dir) => Ok(match pointer(dir)? {
                Some(server) => Source::Server(server),
                None => Source::File(dir.join(FILE)),
            }),
        }
    }
}

/// Where the records of a ledger are.
#[derive(Clone, Debug)]
pub(super) enum Source {
    File(PathBuf),
    Server(Server),
}

impl Source {
    pub fn is_server(&self) -> bool {
        matches!(self, Self::Server(_))
    }

    /// Looks whether there may be something to read; a server says so itself.
    pub fn look(&self) -> Result<(), LedgerError> {
        let Self::File(path) = self else { return Ok(()) };
        let missing = |ledger| Err(LedgerError::Missing { ledger });
        match std::fs::metadata(path) {
            Ok(file) if file.len() > 0 => Ok(()),
            // A bot that died while it began one leaves such a file, and so does a copy that was cut off.
            Ok(_) => missing(format!("in the empty file {self}")),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => missing(self.to_string()),
            Err(cause) => Err(file_error(path, "read", cause)),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Server(server) => server.fmt(f),
        }
    }
}

/// A ledger on a PostgreSQL server: a schema of its own. Nothing of the Secret is kept here: it is read with every
/// connection, so a changed password arrives without a restart.
#[derive(Clone, Debug)]
pub struct Server {
    /// Directory with the files of the Secret: `url` and, where the authority is not a public one, `ca.crt`.
    secret: PathBuf,
    schema: String,
    /// Names this process among the sessions of the server.
    process: String,
}

/// The pointer in a ledger's directory.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Pointer {
    secret_dir: PathBuf,
    schema: String,
}

impl Server {
    /// The ledger of a bot.
    #[must_use]
    pub fn of_bot(secret: &Path, namespace: &str, name: &str) -> Self {
        Self::in_schema(secret, &ledger_schema(namespace, name))
    }

    /// The ledger in a schema.
    #[must_use]
    pub fn in_schema(secret: &Path, schema: &str) -> Self {
        let process = format!("arb-bot/{}", Uuid::new_v4());
        Self { secret: secret.to_owned(), schema: fitting(schema), process }
    }

    pub(super) fn schema(&self) -> &str {
        &self.schema
    }

    pub(super) fn process(&self) -> &str {
        &self.process
    }

    /// Makes a directory the one of this ledger.
    ///
    /// # Errors
    /// It holds another ledger, or the disk fails.
    pub fn point(&self, dir: &Path) -> Result<(), LedgerError> {
        let other = |found: String| {
            let (dir, wanted) = (dir.to_owned(), self.to_string());
            Err(LedgerError::OtherKind { dir, found, wanted })
        };
        let file = dir.join(FILE);
        if file.exists() {
            return other(file.display().to_string());
        }
        if let Some(known) = pointer(dir)?
            && known.schema != self.schema
        {
            return other(known.to_string());
        }
        let failed = |cause| file_error(dir, "write the ledger's directory", cause);
        std::fs::create_dir_all(dir).map_err(failed)?;
        let secret_dir = std::path::absolute(&self.secret).map_err(failed)?;
        let pointer = serde_json::to_vec(&Pointer { secret_dir, schema: self.schema.clone() });
        let pointer = pointer.map_err(|cause| LedgerError::Unencodable { cause })?;
        let staged = dir.join(format!("{POINTER}.new"));
        std::fs::write(&staged, pointer).and_then(|()| std::fs::rename(&staged, dir.join(POINTER))).map_err(failed)
    }

    /// Refuses a directory whose ledger is on a server.
    ///
    /// # Errors
    /// It is, or the disk fails.
    pub fn is_not_in(dir: &Path) -> Result<(), LedgerError> {
        let Some(server) = pointer(dir)? else { return Ok(()) };
        let wanted = dir.join(FILE).display().to_string();
        Err(LedgerError::OtherKind { dir: dir.to_owned(), found: server.to_string(), wanted })
    }

    /// How to connect: what the Secret says now.
    pub(super) fn options(&self) -> Result<PgConnectOptions, LedgerError> {
        let url = self.read("url")?.ok_or_else(|| self.refused("the key `url` is missing"))?;
        let url = str::from_utf8(&url).map_err(|_| self.refused("`url` is no text"))?.trim();
        // The parser's errors name what is wrong and repeat nothing of the text.
        let url = Url::parse(url).map_err(|cause| self.refused(&format!("`url` is no URL: {cause}")))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(self.refused("`url` does not begin with postgres://"));
        }
        for (part, is_there) in [
            ("a host", url.host_str().is_some_and(|host| !host.is_empty())),
            ("a user", !url.username().is_empty()),
            ("a database", url.path().len() > 1),
        ] {
            if !is_there {
                return Err(self.refused(&format!("`url` lacks {part}: postgres://USER:PASSWORD@HOST:5432/DATABASE")));
            }
        }
        let mut mode = PgSslMode::VerifyFull;
        for (key, value) in url.query_pairs() {
            mode = match (&*key, &*value) {
                ("sslmode", "disable") => PgSslMode::Disable,
                ("sslmode", "require") => PgSslMode::Require,
                ("sslmode", "verify-ca") => PgSslMode::VerifyCa,
                ("sslmode", "verify-full") => PgSslMode::VerifyFull,
                ("sslmode", _) => {
                    let known = "verify-full (the default), verify-ca, require or disable";
                    return Err(self.refused(&format!("sslmode in `url` must be {known}: no other keeps what it says")));
                }
                // Its name may be part of a password with a question mark that is not encoded.
                _ => {
                    let problem =
                        "`url` has a parameter other than sslmode: remove it, or write the password's `?` as %3F";
                    return Err(self.refused(problem));
                }
            };
        }
        let options: PgConnectOptions =
            url.as_str().parse().map_err(|_| self.refused("`url` cannot be read: is the port a number?"))?;
        let mut options = options.ssl_mode(mode).extra_float_digits(None).statement_cache_capacity(200);
        if let Some(authority) = self.read("ca.crt")? {
            options = options.ssl_root_cert_from_pem(authority);
        }
        Ok(options)
    }

    fn read(&self, key: &str) -> Result<Option<Vec<u8>>, LedgerError> {
        match std::fs::read(self.secret.join(key)) {
            Ok(content) if content.len() <= LONGEST_SECRET => Ok(Some(content)),
            Ok(_) => Err(self.refused(&format!("`{key}` is too long"))),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(self.refused(&format!("`{key}` cannot be read: {cause}"))),
        }
    }

    fn refused(&self, problem: &str) -> LedgerError {
        LedgerError::Secret { dir: self.secret.clone(), problem: problem.to_owned() }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgreSQL schema {:?}", self.schema)
    }
}

/// The server that a directory points to.
fn pointer(dir: &Path) -> Result<Option<Server>, LedgerError> {
    let path = dir.join(POINTER);
    let content = match std::fs::read(&path) {
        Ok(content) => content,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(file_error(&path, "read", cause)),
    };
    let Pointer { secret_dir, schema } =
        serde_json::from_slice(&content).map_err(|cause| file_error(&path, "read", cause.into()))?;
    Ok(Some(Server::in_schema(&secret_dir, &schema)))
}

/// A name that PostgreSQL does not cut: the end of a longer one becomes a hash.
pub(super) fn fitting(name: &str) -> String {
    if name.len() <= LONGEST_NAME {
        return name.to_owned();
    }
    let hash = format!("{:x}", Sha256::digest(name));
    let kept: String = name.chars().filter(char::is_ascii).take(LONGEST_NAME - 17).collect();
    format!("{kept}~{}", &hash[..16])
}
