//! The environment as an injected part, so that tests run side by side and nothing else reads variables or the uid.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// Environment variables and the user this process runs as.
#[derive(Clone, Debug)]
pub struct Environment {
    variables: HashMap<String, OsString>,
    uid: u32,
}

impl Environment {
    /// What this process was given.
    pub fn process() -> Environment {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| name.into_string().ok().map(|name| (name, value)))
            .collect();
        Environment { variables, uid: rustix::process::geteuid().as_raw() }
    }

    /// Exactly these variables, for the current user.
    pub fn of<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Environment {
        let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        Environment { variables, uid: rustix::process::geteuid().as_raw() }
    }

    pub fn as_user(mut self, uid: u32) -> Environment {
        self.uid = uid;
        self
    }

    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// A variable's text; an empty one counts as unset. Bytes that are no UTF-8 read as U+FFFD.
    pub fn text(&self, name: &str) -> Option<String> {
        self.variables
            .get(name)
            .map(|value| value.to_string_lossy().into_owned())
            .filter(|value| !value.is_empty())
    }

    /// A variable as a path; an empty one counts as unset.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.variables.get(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// The user's home folder: from the password database, since HOME is often wrong in containers; HOME where the
    /// user is not listed (directory services, arbitrary uids).
    pub fn home(&self) -> Option<PathBuf> {
        let listed = std::fs::read_to_string("/etc/passwd").ok().and_then(|text| home_in(&text, self.uid));
        listed.or_else(|| self.path("HOME"))
    }
}

/// The sixth field of the line whose third field is `uid` (passwd(5)).
fn home_in(passwd: &str, uid: u32) -> Option<PathBuf> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let own = fields.get(2)?.parse::<u32>().ok()? == uid;
        fields.get(5).filter(|home| own && !home.is_empty()).map(PathBuf::from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_comes_from_the_password_database() {
        let passwd = "root:x:0:0:root:/r:/bin/sh\nbroken\nada:x:1000:1000::/home/ada:/bin/sh\n";
        assert_eq!(home_in(passwd, 1000), Some(PathBuf::from("/home/ada")));
        assert_eq!(home_in(passwd, 7), None);
    }

    #[test]
    fn empty_variable_counts_as_unset() {
        let env = Environment::of([("STRATA_STORE", "")]);
        assert_eq!(env.text("STRATA_STORE"), None);
        assert_eq!(env.path("STRATA_STORE"), None);
    }
}
