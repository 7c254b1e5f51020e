//! The generated page of settings, and what the command line refuses.

use std::fs;
use std::path::Path;

use clap::Parser;
use dms::config::{Cli, reference};

#[test]
fn reference_page_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    if std::env::var_os("DMS_WRITE_REFERENCE").is_some() {
        fs::write(&path, reference()).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), reference(), "run: DMS_WRITE_REFERENCE=1 cargo test reference");
}

#[test]
fn every_setting_has_a_variable_and_a_help_line() {
    let page = reference();
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| `--")).collect();
    assert!(rows.len() > 20, "{page}");
    for row in rows {
        let cells: Vec<_> = row.split(" | ").collect();
        assert!(cells[1].starts_with("`DMS_") || cells[1] == "`DATABASE_URL`", "{row}");
        assert!(cells[3].len() > 10, "{row}");
    }
}

#[test]
fn bad_settings_are_refused_with_the_allowed_range() {
    let serve = ["dms", "serve", "--database-url", "postgres:///dms"];
    for (flag, value, expected) in [
        ("--append-lanes", "65", "65 is not in 1..=64"),
        ("--queues-per-project", "0", "0 is not in 1..=100000"),
        ("--groups-per-queue", "many", "invalid digit found in string"),
        ("--sweep-interval", "1", "give a time of 100ms to 1m"),
        ("--lane-bytes-max", "1KiB", "give 1MiB to 64GiB"),
        ("--grpc-addr", "localhost", "give IP:PORT"),
        ("--rest-addr", "on", "give IP:PORT, such as 127.0.0.1:8080 or [::]:8080, or off"),
        ("--log", "dms=loud", "\"dms=loud\" is not a level; give error, warn, info"),
    ] {
        let error = Cli::try_parse_from(serve.into_iter().chain([flag, value])).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains(flag), "{error}");
    }
    assert!(Cli::try_parse_from(serve.into_iter().chain(["--rest-addr", "off"])).is_ok());
}
