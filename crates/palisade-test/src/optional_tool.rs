//! External programs that some tests need ([`OptionalTool`]): Redis, promtool, the interop
//! provider.
//!
//! Without the program those tests are skipped, or fail where it is required: with a variable such
//! as `TEST_REDIS=required`, or wherever `CI` is set. One of the first lines of the run says which.

use std::io::Write as _;

/// A program and the tests that need it.
#[derive(Clone, Copy)]
pub struct OptionalTool {
    /// The word before the line that reports it.
    pub topic: &'static str,
    /// `off` in this variable skips the tests; any other value makes them fail without the program.
    pub variable: &'static str,
    /// The tests that need it, for the message about skipped ones.
    pub tests: &'static str,
}

impl OptionalTool {
    /// The value of the variable, if it is set.
    pub fn setting(&self) -> Option<String> {
        std::env::var(self.variable).ok()
    }

    /// Whether a missing tool is a failure.
    pub fn is_required(&self) -> bool {
        match self.setting().as_deref() {
            Some("off") => false,
            Some(_) => true,
            None => std::env::var("CI").is_ok_and(|value| !value.is_empty()),
        }
    }

    /// Writes to standard error past the test harness's capture: the line is about the run, not
    /// about the test that happened to be first.
    pub fn announce(&self, what: &str) {
        let _ = writeln!(std::io::stderr(), "test {}: {what}", self.topic);
    }

    /// Searches for the program unless the variable is `off`, and announces its name or why it is
    /// missing.
    pub fn find<T>(&self, search: impl FnOnce() -> Result<(String, T), String>) -> Result<T, String> {
        let is_off = self.setting().as_deref() == Some("off");
        let found = if is_off { Err(format!("{}=off", self.variable)) } else { search() };
        let consequence = if self.is_required() { "fail" } else { "are SKIPPED" };
        match found {
            Ok((name, tool)) => {
                self.announce(&name);
                Ok(tool)
            }
            Err(reason) => {
                self.announce(&format!("none ({reason}): {} {consequence}", self.tests));
                Err(reason)
            }
        }
    }

    /// The program, or `None` if the tests are to be skipped. Panics if it is required and missing.
    pub fn get<'a, T>(&self, found: &'a Result<T, String>) -> Option<&'a T> {
        match found {
            Ok(found) => Some(found),
            Err(reason) if self.is_required() => panic!("{} are required, but: {reason}", self.tests),
            Err(_) => None,
        }
    }
}
