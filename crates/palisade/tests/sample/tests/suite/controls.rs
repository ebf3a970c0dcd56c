//! The kernel's list of controls against the code and tests of kernel and kit.

use palisade_test::Controls;

#[test]
fn list_of_controls_matches_homes_and_tests() {
    let faults = Controls::of_kernel().faults(&["crates/palisade", "crates/palisade-test"]);
    assert!(faults.is_empty(), "crates/palisade/controls.toml differs from homes and tests:\n{}", faults.join("\n"));
}
