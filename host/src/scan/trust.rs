//! Who else could put code where we load it from.

use std::{
    fs::Metadata,
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

/// Bit of a mode: everybody may write.
const OTHERS_WRITE: u32 = 0o002;
/// Bit of a mode: the group may write.
const GROUP_WRITES: u32 = 0o020;

/// Why a plugin directory, or a file in it, is not trusted.
pub(super) fn distrust(path: &Path) -> io::Result<Option<String>> {
    let mode = path.metadata()?.permissions().mode();
    Ok((mode & OTHERS_WRITE != 0).then(|| {
        format!(
            "every user of this machine can write (mode {:04o}), and so have this program run what they like; `chmod o-w {}`, \
             or say that it is meant with --allow-writable-dirs or plugins.allow_writable_dirs = true",
            mode & 0o7777,
            path.display()
        )
    }))
}

/// Why a directory is no place for what only we may write; `own` is our user id.
pub(super) fn not_ours_alone(metadata: &Metadata, own: u32) -> Option<String> {
    if metadata.uid() != own {
        return Some(format!("it belongs to user {}, and this program runs as user {own}", metadata.uid()));
    }
    let mode = metadata.permissions().mode();
    (mode & (OTHERS_WRITE | GROUP_WRITES) != 0)
        .then(|| format!("others can write it (mode {:04o}); `chmod go-w` it", mode & 0o7777))
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};

    use rustix::process::geteuid;

    use super::*;

    #[test]
    fn what_others_can_write_is_not_trusted() {
        let directory = tempfile::TempDir::new().expect("a directory");
        let path = directory.path();
        let own = geteuid().as_raw();
        let with = |mode: u32| {
            set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
            let metadata = path.metadata().expect("it is there");
            (distrust(path).expect("it is there"), not_ours_alone(&metadata, own))
        };
        assert_eq!(with(0o755), (None, None));
        // The group of a plugin directory is its owner's choice; the cache has no use for one.
        assert!(matches!(with(0o775), (None, Some(_))));
        let (plugins, cache) = with(0o777);
        assert!(plugins.expect("a reason").contains("(mode 0777)"));
        assert!(cache.expect("a reason").contains("others can write it (mode 0777)"));
        // That others cannot delete what is in it does not keep them from adding to it.
        assert!(with(0o1777).0.is_some());
        let metadata = path.metadata().expect("it is there");
        assert!(not_ours_alone(&metadata, own + 1).expect("a reason").contains("belongs to user"));
        set_permissions(path, Permissions::from_mode(0o700)).expect("it is ours");
    }
}
