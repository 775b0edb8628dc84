//! What the command says of itself: to programs, to shells and to `man`.

use crate::common;

use anyhow::{Context, Result, ensure};
use common::{Store, run};
use serde_json::{Value, json};

#[test]
fn programs_read_the_version_and_the_help() -> Result<()> {
    let version = run(&["--version", "--json"], b"")?.one_object(0)?;
    ensure!(version == json!({"name": "multifeed", "version": env!("CARGO_PKG_VERSION")}), "{version}");
    let root = run(&["help", "--json"], b"")?.one_object(0)?;
    ensure!(root == run(&["--json", "--help"], b"")?.one_object(0)?);
    let commands = root["commands"].as_array().context("no commands")?;
    // Each is described, by its own help.
    ensure!(commands.len() > 15, "{commands:?}");
    for command in commands {
        let name = command["command"].as_str().context("no name")?;
        let help = run(&["--json", "help", name], b"")?.one_object(0)?;
        ensure!(help["about"] == command["about"] && help["about"] != "", "{help}");
        ensure!(help["command"] == format!("multifeed {name}") && help["text"].to_string().contains("Usage"), "{help}");
        ensure!(help == run(&[name, "--help", "--json"], b"")?.one_object(0)?, "{name}");
    }
    let append = run(&["help", "append", "--json"], b"")?.one_object(0)?;
    let of = |kind: &str, name: &str, value: &str| -> Result<Value> {
        let all = append[kind].as_array().context("no list")?;
        Ok(all.iter().find(|arg| arg[name] == value).with_context(|| format!("no {value}: {all:?}"))?.clone())
    };
    let writer = of("arguments", "value", "WRITER")?;
    ensure!(writer["required"] == true && writer["many"] == false, "{writer}");
    ensure!(of("arguments", "value", "TEXT")?["many"] == true);
    let store = of("options", "long", "store")?;
    ensure!(store["default"] == "./multifeed" && store["variable"] == "MULTIFEED_STORE", "{store}");
    ensure!(of("options", "long", "new-key")?["value"] == Value::Null);
    Ok(())
}

#[test]
fn shells_and_man_know_each_command() -> Result<()> {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell], b"")?.ok()?.text();
        ensure!(script.contains("append") && script.contains("unban"), "{shell}: {script}");
    }
    run(&["completions", "cmd.exe"], b"")?.ended(2)?;
    // A shell that is here reads its own.
    let script = "eval \"$(\"$0\" completions bash)\"; COMP_WORDS=(multifeed ap); COMP_CWORD=1; \
                  _multifeed multifeed ap multifeed; echo \"${COMPREPLY[@]}\"";
    let binary = env!("CARGO_BIN_EXE_multifeed");
    let completed = std::process::Command::new("bash").args(["-c", script, binary]).output()?;
    ensure!(String::from_utf8_lossy(&completed.stdout).trim() == "append", "{completed:?}");

    let page = run(&["man"], b"")?.ok()?.text();
    ensure!(page.contains(".TH multifeed 1") && page.contains("append"), "{page}");
    let folder = tempfile::tempdir()?;
    let dir = folder.path().join("man1");
    let store = Store::new()?;
    store.run(&["man", dir.to_str().context("not UTF-8")?])?.ok()?;
    for name in ["multifeed.1", "multifeed-sync.1", "multifeed-key-export.1"] {
        ensure!(std::fs::read_to_string(dir.join(name))?.contains(".TH"), "{name}");
    }
    ensure!(store.path().read_dir()?.next().is_none());
    Ok(())
}
