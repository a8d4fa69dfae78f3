//! What to say of metadata that an entry did not get.

use std::fmt;

use rustix::io::Errno;

/// A part of the metadata that is not as wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataProblem {
    /// What could not be done: `set owner 5:5`, `set the attribute user.note`. Where the kernel reported no error, what
    /// became of it: `the file system did not preserve the mode: it is 0777`. Escaped for display.
    pub what: String,
    /// What the kernel answered. `None` where it answered nothing and the value is another one all the same.
    pub errno: Option<Errno>,
}

impl fmt::Display for MetadataProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(errno) = self.errno else { return f.write_str(&self.what) };
        write!(f, "cannot {}: ", self.what)?;
        let of_attribute = self.what.contains(" the attribute ");
        match errno {
            Errno::NOSPC | Errno::DQUOT | Errno::TOOBIG | Errno::RANGE | Errno::NOMEM
                if of_attribute =>
            {
                f.write_str("the file system has no room for attributes of this size")
            }
            Errno::OPNOTSUPP => f.write_str("the file system does not support it"),
            Errno::PERM if self.what.starts_with("set owner ") => f.write_str(
                "Operation not permitted (run as root at the destination, or use --no-owner)",
            ),
            errno => f.write_str(&crate::error::reason(errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_says_what_failed_and_no_number_stands_for_a_reason() {
        let says = |what: &str, errno| MetadataProblem { what: what.into(), errno }.to_string();
        for errno in [Errno::NOSPC, Errno::TOOBIG, Errno::RANGE] {
            assert_eq!(
                says("set the attribute user.x", Some(errno)),
                "cannot set the attribute user.x: the file system has no room for attributes of this size"
            );
        }
        assert_eq!(
            says("set inode flags", Some(Errno::OPNOTSUPP)),
            "cannot set inode flags: the file system does not support it"
        );
        assert_eq!(
            says("set owner 1:2", Some(Errno::PERM)),
            "cannot set owner 1:2: Operation not permitted (run as root at the destination, or use --no-owner)"
        );
        let silent = "the file system did not preserve the mode: it is 0777";
        assert_eq!(says(silent, None), silent);
    }
}
