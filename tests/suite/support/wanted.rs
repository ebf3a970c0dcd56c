use std::io::Write as _;

/// A program of others that some tests need. What becomes of those tests stands among the first lines of a run.
pub struct Wanted {
    /// The word before those lines.
    pub topic: &'static str,
    /// `off` in this variable leaves the tests out; anything else makes them fail without the program, as `CI` does.
    pub variable: &'static str,
    pub tests: &'static str,
}

impl Wanted {
    /// What the variable says, if anything.
    pub fn said(&self) -> Option<String> {
        std::env::var(self.variable).ok()
    }

    pub fn is_required(&self) -> bool {
        match self.said().as_deref() {
            Some("off") => false,
            Some(_) => true,
            None => std::env::var("CI").is_ok_and(|value| !value.is_empty()),
        }
    }

    /// Past the test harness's capture: this belongs to the run, not to the test that happened to be first.
    pub fn announce(&self, what: &str) {
        let _ = writeln!(std::io::stderr(), "test {}: {what}", self.topic);
    }

    /// Says what was found, by this name, or why nothing was. It is not looked for if it is off.
    pub fn look<T>(&self, look: impl FnOnce() -> Result<(String, T), String>) -> Result<T, String> {
        let found = if self.said().as_deref() == Some("off") { Err(format!("{}=off", self.variable)) } else { look() };
        let consequence = if self.is_required() { "fail" } else { "are LEFT OUT" };
        match found {
            Ok((name, found)) => {
                self.announce(&name);
                Ok(found)
            }
            Err(reason) => {
                self.announce(&format!("none ({reason}): {} {consequence}", self.tests));
                Err(reason)
            }
        }
    }

    /// `None` if the tests are to be left out.
    pub fn get<'a, T>(&self, found: &'a Result<T, String>) -> Option<&'a T> {
        match found {
            Ok(found) => Some(found),
            Err(reason) if self.is_required() => panic!("{} are required, but: {reason}", self.tests),
            Err(_) => None,
        }
    }
}
