//! The reference of all settings as a page, so that the documentation cannot differ from the program.

use std::fmt::Write as _;

use clap::{Arg, CommandFactory};

use super::Cli;

const HEAD: &str = "# Configuration

Every setting is a flag with an environment variable; the flag wins. Settings are checked once, at the start. This page is
generated: `DMS_WRITE_REFERENCE=1 cargo test reference` writes it.
";

/// The text of `docs/configuration.md`.
pub fn reference() -> String {
    let mut cli = Cli::command();
    cli.build();
    let mut page = HEAD.to_owned();
    let mut seen = Vec::new();
    section(&mut page, "All commands", None, cli.get_arguments(), &mut seen);
    for command in cli.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help") {
        let title = format!("`dms {}`", command.get_name());
        let about = command.get_about().map(ToString::to_string);
        section(&mut page, &title, about, command.get_arguments(), &mut seen);
    }
    page
}

/// A table of the settings that are in no earlier table, and a list of the others.
fn section<'a>(
    page: &mut String,
    title: &str,
    about: Option<String>,
    arguments: impl Iterator<Item = &'a Arg>,
    seen: &mut Vec<String>,
) {
    let of_its_own = |arg: &&Arg| !arg.is_hide_set() && !arg.is_global_set() || title == "All commands";
    let settings = arguments.filter(|arg| arg.get_long().is_some_and(|long| !matches!(long, "help" | "version")));
    let (new, known) = split(settings.filter(of_its_own), seen);
    let mut text = format!("\n## {title}\n");
    if let Some(about) = about {
        let _ = write!(text, "\n{about}.\n");
    }
    if !new.is_empty() {
        text += "\n| Flag | Environment | Default | Meaning |\n|---|---|---|---|\n";
        new.iter().for_each(|arg| text += &row(arg));
    }
    if !known.is_empty() {
        let _ = write!(text, "\nAlso, as above: {}.\n", listed(&known));
    }
    *page += &text;
}

/// The settings that are in no earlier table, and the flags of the others with their places there.
fn split<'a>(settings: impl Iterator<Item = &'a Arg>, seen: &mut Vec<String>) -> (Vec<&'a Arg>, Vec<(usize, String)>) {
    let (mut new, mut known) = (Vec::new(), Vec::new());
    for arg in settings {
        let setting = format!("{:?}{:?}", arg.get_long(), arg.get_help());
        match seen.iter().position(|earlier| *earlier == setting) {
            Some(place) => known.push((place, flag(arg))),
            None => {
                seen.push(setting);
                new.push(arg);
            }
        }
    }
    (new, known)
}

/// Flags with their places in the tables above; three or more in a row are named by the first and the last.
fn listed(known: &[(usize, String)]) -> String {
    let runs = known.chunk_by(|(place, _), (next, _)| *next == place + 1).map(|run| match run {
        [(_, first), _, .., (_, last)] => format!("`{first}` to `{last}`"),
        run => run.iter().map(|(_, flag)| format!("`{flag}`")).collect::<Vec<_>>().join(", "),
    });
    runs.collect::<Vec<_>>().join(", ")
}

fn row(arg: &Arg) -> String {
    let variable = arg.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default();
    let default: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let default = match default.is_empty() {
        true if arg.is_required_set() => "required".to_owned(),
        true => String::new(),
        false => format!("`{}`", default.join(" ")),
    };
    let mut meaning = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let values: Vec<_> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    if values.len() > 2 {
        let _ = write!(meaning, ": {}", values.join(", "));
    }
    let meaning = meaning.replace('|', "\\|");
    format!("| `--{}` | {variable} | {default} | {meaning} |\n", flag(arg).trim_start_matches("--"))
}

fn flag(arg: &Arg) -> String {
    format!("--{}", arg.get_long().unwrap_or_default())
}
