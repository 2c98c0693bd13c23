//! `cargo xtask setup`: the system libraries, models and recordings that are opened at run time.
//!
//! Nothing is downloaded from anywhere but the system's own package archive, and nothing runs when nothing is missing.

mod packages;
mod system;

use std::{
    env,
    fs::File,
    io::{self, BufRead, IsTerminal, Write},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::shell::{complain, render, say, step};
use packages::Package;
use system::System;

pub(crate) use packages::Purpose;

/// Install the system libraries that are missing
///
/// Looks for the libraries, models and recordings that Antiphon's plugins open at run time. On Debian and its relatives
/// the missing ones are installed with apt-get (as root, or with sudo); elsewhere their names are printed. `demo` and
/// `test` do this by themselves. When nothing is missing, nothing is run and no network is needed.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Which job to prepare for
    #[arg(long = "for", value_enum, default_value_t = Purpose::Test)]
    purpose: Purpose,
    /// Ask nothing: neither whether to install nor for a sudo password
    #[arg(long)]
    yes: bool,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask setup              what is missing for demo and tests? asks, then installs it
  cargo xtask setup --yes        the same in a script or an image build
  cargo xtask setup --for demo   only what the demo needs";

/// Whom a setup may ask while it works.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Confirm before installing; a sudo password.
    Everything,
    /// A sudo password, on a terminal.
    Password,
    Nothing,
}

/// How things stand after a setup.
pub(crate) enum Outcome {
    /// All there.
    Ready,
    /// Something is missing and this system's packages are not known to us.
    NotDebian(Vec<&'static Package>),
    /// Something is missing and could not be installed.
    Failed(Vec<&'static Package>),
}

pub(crate) fn run(args: Args) -> Result<()> {
    match ensure(args.purpose, if args.yes { Ask::Nothing } else { Ask::Everything })? {
        Outcome::Ready => Ok(()),
        Outcome::NotDebian(missing) | Outcome::Failed(missing) => bail!("still missing: {}", names(&missing)),
    }
}

/// Brings in what `purpose` needs, and tells what is still missing afterwards: whether that matters is up to the caller.
pub(crate) fn ensure(purpose: Purpose, ask: Ask) -> Result<Outcome> {
    let system = System::here();
    let missing = packages::missing(&system, purpose);
    if missing.is_empty() {
        say("==> setup: all system libraries are there");
        return Ok(Outcome::Ready);
    }
    let os = system.os_release();
    if !(os.is_debian() && has_program("apt-get")) {
        explain(&os.name, &missing);
        return Ok(Outcome::NotDebian(missing));
    }
    say("==> setup: not there yet");
    for package in &missing {
        say(format_args!("    {:22} {}", package.debian, package.why));
    }
    let Some(privilege) = Privilege::find(ask) else {
        let (who, sudo) = if has_program("sudo") { ("", "sudo ") } else { (" as root", "") };
        complain(format_args!("installing them needs root; please run{who}: {}", by_hand(sudo, &missing)));
        return Ok(Outcome::Failed(missing));
    };
    if ask == Ask::Everything && !confirmed()? {
        return Ok(Outcome::Failed(missing));
    }

    let installed = install(privilege, &missing);
    // Judged by what is there now, not by what apt-get said.
    let still = packages::missing(&System::here(), purpose);
    match installed {
        Err(error) => {
            complain(format_args!("could not install {}: {error:#}", names(&missing)));
            complain(format_args!("to try it by hand: {}", by_hand(privilege.prefix(), &missing)));
        }
        Ok(()) => {
            for package in &still {
                let (name, probe, sudo) = (package.debian, &package.probe, privilege.prefix());
                complain(format_args!("{name} is installed, but there is no {probe}"));
                complain(format_args!("to mend it: {sudo}apt-get install --reinstall {name}"));
            }
        }
    }
    Ok(if still.is_empty() { Outcome::Ready } else { Outcome::Failed(still) })
}

/// Names as in a sentence: `libflite1, pocketsphinx-en-us`.
pub(crate) fn names(packages: &[&Package]) -> String {
    packages.iter().map(|package| package.debian).collect::<Vec<_>>().join(", ")
}

fn explain(system: &str, missing: &[&Package]) {
    let system = if system.is_empty() { "this system" } else { system };
    say(format_args!("==> setup: {system} is not Debian or made from it; please install by its own means:"));
    for package in missing {
        say(format_args!("    {}", package.what));
        say(format_args!("        {}", package.why));
        say(format_args!(
            "        looked for {}; on Debian it is the package {}",
            package.probe, package.debian
        ));
    }
}

fn install(privilege: Privilege, missing: &[&Package]) -> Result<()> {
    step(format_args!("installing {} (a minute or two)", names(missing)), || {
        // A failed update is no failure yet: the lists at hand may well be good enough.
        let update = privilege.apt_get(&["update"]).output().context("cannot start apt-get")?;
        let mut command = privilege.apt_get(&["install", "-y", "--no-install-recommends"]);
        command.args(missing.iter().map(|package| package.debian));
        let install = command.output().context("cannot start apt-get")?;
        if !install.status.success() {
            complain(indented(&update.stderr));
            complain(indented(&install.stdout));
            complain(indented(&install.stderr));
            bail!("`{}` failed ({})", render(&command), install.status);
        }
        Ok(())
    })
}

/// How we may change the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Privilege {
    Root,
    /// Without a password.
    Sudo,
    /// sudo asks for the password itself, on the terminal.
    SudoWithPassword,
}

impl Privilege {
    fn find(ask: Ask) -> Option<Privilege> {
        let id = Command::new("id").arg("-u").output().ok()?;
        if id.stdout.trim_ascii() == b"0" {
            return Some(Privilege::Root);
        }
        let mut probe = Command::new("sudo");
        probe.args(["-n", "true"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match probe.status() {
            Ok(status) if status.success() => Some(Privilege::Sudo),
            // sudo reads the password from the controlling terminal, which is not always stdin.
            Ok(_) if ask != Ask::Nothing && io::stdin().is_terminal() && File::open("/dev/tty").is_ok() => {
                Some(Privilege::SudoWithPassword)
            }
            _ => None,
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Privilege::Root => "",
            Privilege::Sudo | Privilege::SudoWithPassword => "sudo ",
        }
    }

    fn apt_get(self, arguments: &[&str]) -> Command {
        // `env`, because sudo passes hardly any variable on. Without this one debconf asks questions nobody sees.
        let quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"];
        // Another apt at work (automatic upgrades on a fresh machine) is waited for.
        let patient = ["-o", "DPkg::Lock::Timeout=120"];
        let sudo: &[&str] = match self {
            Privilege::Root => &[],
            Privilege::Sudo => &["sudo", "-n"],
            Privilege::SudoWithPassword => &["sudo"],
        };
        let words = [sudo, &quiet, &patient, arguments].concat();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).stdin(Stdio::null());
        command
    }
}

/// Whether the user agrees. Nobody to ask means yes: the command was typed for this.
fn confirmed() -> Result<bool> {
    if !io::stdin().is_terminal() {
        return Ok(true);
    }
    write!(io::stderr(), "    install with apt-get? [Y/n] ").context("cannot ask on stderr")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "" | "y" | "yes") && answer.ends_with('\n'))
}

fn by_hand(prefix: &str, missing: &[&Package]) -> String {
    let packages = missing.iter().map(|package| package.debian).collect::<Vec<_>>().join(" ");
    format!("{prefix}apt-get update && {prefix}apt-get install -y --no-install-recommends {packages}")
}

fn has_program(name: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|directory| directory.join(name).is_file()))
}

fn indented(output: &[u8]) -> String {
    String::from_utf8_lossy(output).lines().map(|line| format!("    | {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_to_run_by_hand_is_complete() {
        let missing: Vec<_> =
            packages::PACKAGES.iter().filter(|package| package.debian.contains("flite")).collect();
        assert_eq!(
            by_hand("sudo ", &missing),
            "sudo apt-get update && sudo apt-get install -y --no-install-recommends libflite1"
        );
    }

    #[test]
    fn debconf_is_silenced_through_sudo_too() {
        assert_eq!(
            render(&Privilege::Sudo.apt_get(&["update"])),
            "sudo -n env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 update"
        );
        assert_eq!(Privilege::Root.apt_get(&["update"]).get_program(), "env");
    }
}
