//! What the command line heeds and refuses, and the page that tells of it.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

const LOAD: [&str; 9] = [
    "bench",
    "--scenario=produce",
    "--duration=1",
    "--warmup=0",
    "--clients=4",
    "--connections=1",
    "--size=200",
    "--json",
    "--log=warn",
];

fn lab(program: impl AsRef<Path>, flags: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(program.as_ref()).args(flags).envs(environment.iter().copied()).output().unwrap()
}

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat()
}

#[test]
fn nothing_that_the_environment_names_is_loaded() {
    let theirs = TcpListener::bind("127.0.0.1:0").unwrap();
    theirs.set_nonblocking(true).unwrap();
    let address = theirs.local_addr().unwrap();
    let database_url = format!("postgres://somebody@{address}/theirs?sslmode=disable");
    let target = format!("http://{address}");
    let environment = [
        ("DATABASE_URL", database_url.as_str()),
        ("DMS_BENCH_DATABASE_URL", &database_url),
        ("DMS_TEST_DATABASE_URL", &database_url),
        ("DMS_BENCH_TARGET", &target),
    ];
    let output = lab(env!("CARGO_BIN_EXE_dms-lab"), &LOAD, &environment);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(theirs.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "somebody has connected");

    // By a flag it is, and the listener sees it.
    let visitor = std::thread::spawn(move || {
        theirs.set_nonblocking(false).unwrap();
        theirs.accept().map(drop)
    });
    let named = [&LOAD[..], &["--database-url", &database_url]].concat();
    let output = lab(env!("CARGO_BIN_EXE_dms-lab"), &named, &[]);
    assert!(!output.status.success(), "{}", text(&output));
    visitor.join().unwrap().unwrap();
}

#[test]
fn a_program_that_is_missing_is_named_with_the_way_to_build_it() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("alone");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let alone = folder.join("dms-lab");
    fs::hard_link(env!("CARGO_BIN_EXE_dms-lab"), &alone).unwrap();
    let output = lab(&alone, &LOAD, &[]);
    assert!(!output.status.success());
    assert!(text(&output).contains("cargo build --bin dms"), "{}", text(&output));
    let output = lab(&alone, &[&LOAD[..], &["--program", "/nowhere/dms"]].concat(), &[]);
    assert!(text(&output).contains("program: there is no file /nowhere/dms"), "{}", text(&output));
}

/// `lab/README.md` up to the settings, and the settings as `--help` has them.
fn page(head: &str) -> String {
    let mut page = head.to_owned();
    for command in ["bench", "chaos"] {
        let mut program = Command::new(env!("CARGO_BIN_EXE_dms-lab"));
        // Values of variables would be shown.
        let output = program.env_clear().args([command, "--help"]).output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
        page += &format!("\n### `dms-lab {command}`\n\n```text\n{}\n```\n", lines.join("\n").trim_end());
    }
    page
}

#[test]
fn the_settings_in_the_readme_are_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let written = fs::read_to_string(&path).unwrap();
    let begin = written.find("\n### `dms-lab bench`").unwrap_or(written.len());
    let page = page(&written[..begin]);
    if std::env::var_os("DMS_WRITE_REFERENCE").is_some() {
        fs::write(&path, &page).unwrap();
        return;
    }
    assert_eq!(written, page, "run: DMS_WRITE_REFERENCE=1 cargo test -p dms-lab the_settings");
}
