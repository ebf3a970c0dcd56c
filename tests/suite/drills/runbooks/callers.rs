//! The command of the index that lists the callers of an event (LOG-08).

use std::{path::Path, process::Command};

use super::blocks;

#[test]
fn log_08_runbook_lists_callers_with_the_number_of_their_events() {
    let log = r#"{"event":"authz_fail","subject":"bob","tenant":"t"} {"event":"authz_fail","subject":"eve","tenant":"t"}
        {"event":"authz_fail","source":"t eve","repeated":149} {"event":"data_changed","subject":"eve","tenant":"t"}
        {"event":"authz_fail","source":"2001:db8::/64","repeated":7} {"event":"authz_fail","repeated":3}"#;
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("log-{}", uuid::Uuid::now_v7()));
    std::fs::write(&file, log).unwrap();
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", &blocks("README.md")[0]]).env("EVENT", "authz_fail").env("LOG", file);
    let listed = shell.output().unwrap().stdout;
    assert_eq!(String::from_utf8_lossy(&listed), "150 t eve\n7 2001:db8::/64\n3 further callers\n1 t bob\n");
}
