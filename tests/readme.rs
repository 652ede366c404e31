//! The README does not drift: it names every command and every option, and its events are events.
#![allow(clippy::unwrap_used, reason = "tests may fail")]

use clap::CommandFactory;
use gammaray::cli::Cli;

const README: &str = include_str!("../README.md");
/// Options that `--help` explains well enough.
const NOT_NAMED: [&str; 2] = ["help", "image"];

#[test]
fn it_names_every_command_and_option() {
    for command in Cli::command().get_subcommands() {
        let name = command.get_name();
        assert!(README.contains(&format!("`{name}`")), "the table of commands lacks {name}");
        for option in
            command.get_arguments().filter(|a| !a.is_positional() && !NOT_NAMED.contains(&a.get_id().as_str()))
        {
            let long = option.get_long().is_some_and(|l| README.contains(&format!("--{l}")));
            let short = option.get_short().is_some_and(|s| README.contains(&format!(" -{s} ")));
            assert!(long || short, "{name} has {}, and the README does not name it", option.get_id());
        }
    }
}

#[test]
fn its_events_are_events() {
    let events: Vec<serde_json::Value> =
        README.lines().filter(|l| l.starts_with("{\"seq\"")).map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(!events.is_empty());
    for e in events {
        for field in ["seq", "time", "vm", "type", "origin"] {
            assert!(e.get(field).is_some(), "no {field}: {e}");
        }
    }
}
