//! What a child does to itself before it runs code that nobody vouches for.
#![expect(unsafe_code, reason = "descriptors that were inherited have no owner to close them")]

use std::{io, os::fd::RawFd};

use rustix::{
    process::{Resource, Rlimit, setrlimit},
    thread::set_no_new_privs,
};
use serde::{Deserialize, Serialize};

/// What a child may use; none: what the host may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// Private writable memory in bytes (`RLIMIT_DATA`): heap, stacks and writable data, but neither mapped files nor
    /// address space that is only reserved.
    pub(crate) memory_bytes: Option<u64>,
    /// Seconds of processor time in all (`RLIMIT_CPU`).
    pub(crate) cpu_seconds: Option<u64>,
    /// Open files (`RLIMIT_NOFILE`).
    pub(crate) open_files: Option<u64>,
}

/// Closes every descriptor that was inherited, but for standard input, output and error.
///
/// # Safety
///
/// Nothing in this process may own a descriptor yet.
pub(super) unsafe fn close_inherited() -> io::Result<()> {
    // Somebody was here before us, and has descriptors that are still in use.
    if std::fs::read_dir("/proc/self/task")?.count() > 1 {
        return Ok(());
    }
    let open: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|descriptor| *descriptor > 2)
        .collect();
    for descriptor in open {
        // The descriptor of the directory itself is gone by now.
        if std::path::Path::new(&format!("/proc/self/fd/{descriptor}")).symlink_metadata().is_ok() {
            // SAFETY: the caller says that nobody owns it.
            unsafe { rustix::io::close(descriptor) };
        }
    }
    Ok(())
}

/// Gives up what the child does not need, for good.
pub(super) fn confine(limits: &Limits) -> io::Result<()> {
    // No program that is started from here gains rights.
    set_no_new_privs(true)?;
    // A crash is expected here; it should not fill the disk.
    limit(Resource::Core, Some(0), 0)?;
    if is_larger_than_now(limits.memory_bytes) {
        limit(Resource::Data, limits.memory_bytes, 0)?;
    }
    // Where memory runs out, the kernel takes this process before the host. It cannot everywhere be asked for.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    // At the limit there is SIGXCPU, which says what it was; SIGKILL, which does not, is for those that ignore it.
    limit(Resource::Cpu, limits.cpu_seconds, 1)?;
    limit(Resource::Nofile, limits.open_files, 0)
}

/// Whether memory is left below a limit. It is not under a sanitizer, whose bookkeeping alone has terabytes, all of them
/// only reserved: then a limit would forbid everything.
fn is_larger_than_now(bytes: Option<u64>) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let used = status
        .lines()
        .find_map(|line| line.strip_prefix("VmData:")?.trim().strip_suffix(" kB")?.parse().ok());
    bytes.is_none_or(|bytes| used.is_none_or(|used: u64| used.saturating_mul(1024) < bytes))
}

/// Sets a limit, and another one `beyond` it that nobody can raise.
fn limit(resource: Resource, to: Option<u64>, beyond: u64) -> io::Result<()> {
    let Some(to) = to else { return Ok(()) };
    // What is stricter already stays so.
    let now = rustix::process::getrlimit(resource);
    let at_most = |wanted: u64| Some(now.maximum.map_or(wanted, |maximum| maximum.min(wanted)));
    Ok(setrlimit(resource, Rlimit { current: at_most(to), maximum: at_most(to.saturating_add(beyond)) })?)
}
