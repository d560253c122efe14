//! Shell completions, the man page and the editors' definitions, each from what it tells of itself.

use std::io::Write;

use super::args;
use super::{Done, Failure};

pub fn completions(shell: clap_complete::Shell) -> Done {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::command(), "mailworker", &mut script);
    std::io::stdout().write_all(&script).map_err(Failure::from)
}

/// What a worker may call, for editors.
pub fn definitions() -> Done {
    std::io::stdout().write_all(crate::rules::reference::definitions().as_bytes()).map_err(Failure::from)
}

/// The annotated configuration, which the tests hold against the code: every key with its default.
const REFERENCE: &str = include_str!("../../deploy/mailworker.toml");

/// One page: the program, then each command as a section of its own, then the configuration.
pub fn man() -> Done {
    let mut command = args::command();
    command.build();
    let page = clap_mangen::Man::new(command.clone());
    let mut out = Vec::new();
    page.render_title(&mut out)?;
    page.render_name_section(&mut out)?;
    page.render_synopsis_section(&mut out)?;
    page.render_description_section(&mut out)?;
    page.render_options_section(&mut out)?;
    for child in command.get_subcommands().filter(|child| !child.is_hide_set()) {
        section(child, &mut out)?;
    }
    page.render_extra_section(&mut out)?;
    configuration(&mut out)?;
    page.render_version_section(&mut out)?;
    std::io::stdout().write_all(&out).map_err(Failure::from)
}

/// The reference as it is, line by line.
fn configuration(out: &mut Vec<u8>) -> Done {
    writeln!(out, ".SH CONFIGURATION\n.nf")?;
    for line in REFERENCE.lines() {
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        // A dot or a quote at a line's start would be a request.
        let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
        writeln!(out, "{guard}{line}")?;
    }
    writeln!(out, ".fi")?;
    Ok(())
}

fn section(command: &clap::Command, out: &mut Vec<u8>) -> Done {
    let children: Vec<_> = command.get_subcommands().collect();
    for child in &children {
        section(child, out)?;
    }
    if !children.is_empty() {
        return Ok(());
    }
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    writeln!(out, ".SH \"{}\"", name.to_uppercase())?;
    let mut own = command.clone();
    for shared in ["config", "env", "color", "help", "version"] {
        if own.get_arguments().any(|argument| argument.get_id() == shared) {
            own = own.mut_arg(shared, |argument| argument.hide(true));
        }
    }
    let page = clap_mangen::Man::new(own);
    let mut body = Vec::new();
    page.render_synopsis_section(&mut body)?;
    page.render_description_section(&mut body)?;
    page.render_options_section(&mut body)?;
    page.render_extra_section(&mut body)?;
    // What is a page's section there is a subsection here.
    out.write_all(
        String::from_utf8_lossy(&body).replace("\n.SH ", "\n.SS ").replace(".SH SYNOPSIS", ".SS SYNOPSIS").as_bytes(),
    )?;
    Ok(())
}
