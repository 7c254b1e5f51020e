//! The fault suite in short: it passes under faults, and it notices what is broken on purpose. `scripts/chaos` is the long form.

use std::process::{Command, Output};

fn chaos(flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dms-lab"));
    // Settings of the shell are not for tests.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DMS_CHAOS_")) {
        command.env_remove(name);
    }
    command.args(["--log=warn", "chaos"]).args(flags).output().unwrap()
}

/// What a run says, whatever came of it.
fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat()
}

#[test]
fn the_guarantees_hold_under_faults() {
    let output = chaos(&["--rounds=5", "--messages=1000", "--rate=300", "--fault-time=3s", "--time-limit=90s"]);
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.starts_with("seed ") && text.contains("violations: 0"), "{text}");
    assert!(!text.contains("messages sent: 0 answered"), "{text}");
}

#[test]
fn the_loss_of_the_primary_loses_nothing_that_a_synchronous_standby_has() {
    let short = ["--rounds=2", "--messages=1000", "--rate=300", "--fault-time=3s", "--time-limit=90s"];
    let output = chaos(&[&["--standby", "--faults=primary-lost"], &short[..]].concat());
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("violations: 0") && text.contains("primary-lost"), "{text}");
}

/// A guarantee broken on purpose, and the rule that names it.
fn is_noticed(sabotage: &str, rule: &str) {
    let output = chaos(&["--sabotage", sabotage, "--rounds=0", "--messages=4000", "--rate=600"]);
    let text = text(&output);
    assert!(!output.status.success(), "{text}");
    assert!(text.contains(&format!("{sabotage} was noticed as {rule}")), "{text}");
    assert!(text.contains(&format!("VIOLATION of {rule}")), "{text}");
}

#[test]
fn lost_sends_are_noticed() {
    is_noticed("sends-lost", "lost");
}

#[test]
fn starved_messages_are_noticed() {
    is_noticed("failed-starve", "starved");
}

#[test]
fn shared_leases_are_noticed() {
    is_noticed("lease-shared", "lease");
}
