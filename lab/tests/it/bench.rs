//! The comparisons of `dms-lab bench`, too short to tell anything but that they run and that their results are right.

use std::process::{Command, Output};

/// One round of these rows on a Postgres and services of their own; none of them needs pgmq.
fn compare(rows: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dms-lab"))
        .args(["bench", "--compare", rows, "--duration", "1", "--warmup", "0", "--rounds", "1"])
        .env_remove("DATABASE_URL")
        .output()
        .unwrap()
}

#[test]
fn comparisons_run_and_find_nothing_wrong() {
    let output = compare("l,m,n");
    let (text, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}{errors}");
    assert!(text.contains("fsync = on") && !text.contains("WRONG RESULTS"), "{text}");
    for line in [
        "## l. One lone client",
        "| l | p50 of a send against a single-row INSERT",
        "## m. REST against gRPC",
        "| m | send + consume + ack |",
        "## n. Two replicas",
        "| n | send + consume + ack on two replicas against one |",
    ] {
        assert!(text.lines().any(|found| found.starts_with(line)), "{line}\n{text}");
    }
    assert!(!text.contains("not measured"), "{text}");
}
