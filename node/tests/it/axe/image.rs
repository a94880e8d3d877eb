//! Disks that can lose power: XFS on loop-mounted images.
//!
//! `xfs_io -x -c shutdown` stops a file system between two instructions, without writing anything
//! back: what was not fsynced is gone, as after a power cut. A process killed with `kill -9` loses
//! nothing, because its writes are in the kernel.
//!
//! A machine that lost power boots again, and the store looks at the kernel's boot id to know. So
//! each node sees a boot id of its own: a file bound over the kernel's in a mount namespace of the
//! process. The namespace must not keep images mounted that are unmounted outside; therefore the
//! yard is a mount that shares its changes.
//!
//! Everything is undone when the yard is dropped, also after a panic. Names carry the process id,
//! and what a process that was killed left behind is cleared by the next, but for its nodes: these go
//! on, their disks stay busy, and somebody has to end them first.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The smallest image that `mkfs.xfs` takes is 300 MiB. It is sparse.
const IMAGE_BYTES: u64 = 320 << 20;

/// How long the kernel may hold on to a file system whose processes are dead.
const UNMOUNT_WITHIN: Duration = Duration::from_secs(10);
/// How often it is asked.
const GLANCE: Duration = Duration::from_millis(10);

/// Starts the names of the rig's directories; then come the process id and a dash.
const PREFIX: &str = "holm-rig-";

/// Says that a directory was kept on purpose, and why.
const KEPT: &str = "KEPT";

/// Binds `$0` over the kernel's boot id, and becomes the rest of the line.
const BOOT_SCRIPT: &str = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";

/// Programs that the rig needs, and the packages that bring them: `cargo xtask setup` knows them too.
const TOOLS: [&str; 6] = ["mkfs.xfs", "xfs_io", "mount", "umount", "unshare", "losetup"];

/// The directory of one rig: logs, configurations and, for power cuts, images.
#[derive(Debug)]
pub(crate) struct Yard {
    is_mount: bool,
    dir: TempDir,
}

impl Yard {
    /// A directory without images.
    pub(crate) fn plain() -> Yard {
        clear_stale();
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir().unwrap();
        Yard { is_mount: false, dir }
    }

    /// A directory for images, or why this machine cannot have one.
    pub(crate) fn with_mounts() -> Result<Yard, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("mounting needs root".to_owned());
        }
        let missing = |tool: &&&str| {
            let places = ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin"];
            !places.iter().any(|place| Path::new(place).join(tool).exists())
        };
        if let Some(tool) = TOOLS.iter().find(missing) {
            return Err(format!("no {tool} here; `cargo xtask setup` installs it"));
        }
        let mut yard = Yard::plain();
        let path = yard.path().to_str().unwrap().to_owned();
        run("mount", &["--bind", &path, &path])?;
        yard.is_mount = true;
        run("mount", &["--make-shared", &path])?;
        Ok(yard)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Leaves everything where it is, and says so.
    pub(crate) fn keep(&mut self, why: &str) {
        self.dir.disable_cleanup(true);
        let _ = fs::write(self.path().join(KEPT), why);
        eprintln!("kept: {}", self.path().display());
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        if self.is_mount {
            unmount(self.dir.path());
        }
    }
}

/// One node's disk, mounted.
#[derive(Debug)]
pub(crate) struct Image {
    file: PathBuf,
    mounted_at: PathBuf,
    /// What the node takes for the kernel's boot id.
    boot: PathBuf,
}

impl Image {
    /// Makes a file system in the yard and mounts it.
    pub(crate) fn new(yard: &Yard, id: u64, mount_at: &Path) -> Result<Image, String> {
        let file = yard.path().join(format!("disk-{id}.img"));
        let boot = yard.path().join(format!("boot-{id}"));
        File::create(&file).and_then(|image| image.set_len(IMAGE_BYTES)).unwrap();
        run("mkfs.xfs", &["-q", file.to_str().unwrap()])?;
        fs::create_dir_all(mount_at).unwrap();
        let image = Image { file, mounted_at: mount_at.to_path_buf(), boot };
        image.mount()?;
        Ok(image)
    }

    /// Mounts it for the next boot of its machine. Always on a loop device of its own: if somebody's
    /// mount namespace still holds the file system that was stopped, mounting its device again would
    /// show that one.
    fn mount(&self) -> Result<(), String> {
        let id: u128 = rand::random();
        fs::write(&self.boot, format!("{id:032x}\n")).unwrap();
        let (file, at) = (self.file.to_str().unwrap(), self.mounted_at.to_str().unwrap());
        let device = run("losetup", &["--find", "--show", file])?;
        let mounted = run("mount", &["-t", "xfs", "-o", "nouuid", &device, at]);
        // The device goes when nothing is mounted from it any more.
        run("losetup", &["--detach", &device])?;
        mounted.map(drop)
    }

    /// What starts a process on this machine.
    pub(crate) fn launcher(&self) -> Vec<String> {
        let boot = self.boot.to_str().unwrap();
        let words = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", BOOT_SCRIPT, boot];
        words.map(str::to_owned).to_vec()
    }

    /// Cuts the power: from here on nothing reaches the disk. The answer ends when it is done, so
    /// that several disks can be cut at once.
    pub(crate) fn cut(&self) -> Child {
        // The same call on a directory of the machine's own file system would stop the machine.
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let at = self.mounted_at.to_str().unwrap();
        let is_ours = mounts.lines().any(|line| {
            let mut words = line.split(' ');
            let source = words.next().is_some_and(|source| source.starts_with("/dev/loop"));
            source && words.next() == Some(at) && words.next() == Some("xfs")
        });
        assert!(is_ours, "{at} is not a mounted image");
        let mut command = Command::new("xfs_io");
        command.args(["-x", "-c", "shutdown", at]).stdin(Stdio::null());
        command.spawn().unwrap()
    }

    /// Power is back, after the node's process has ended: mounts what the disk really holds.
    pub(crate) fn restore(&self) -> Result<(), String> {
        unmount(&self.mounted_at);
        self.mount()
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        unmount(&self.mounted_at);
    }
}

/// Runs a tool; what it printed.
fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("{program} {}: {said}", args.join(" ")))
}

/// Unmounts what was mounted last at a path. A file system that is still in use is waited for, and
/// taken out of sight if that takes too long.
fn unmount(path: &Path) {
    let path = path.to_str().unwrap();
    let deadline = Instant::now() + UNMOUNT_WITHIN;
    while let Err(error) = run("umount", &[path]) {
        if !error.contains("busy") || Instant::now() > deadline {
            eprintln!("{error}");
            let _ = run("umount", &["--lazy", path]);
            return;
        }
        std::thread::sleep(GLANCE);
    }
}

/// The process that made a path of a rig, if it is one and that process is gone.
fn is_stale(path: &str) -> bool {
    let Some((_, rest)) = path.split_once(&format!("/{PREFIX}")) else { return false };
    let pid = rest.split_once('-').and_then(|(pid, _)| pid.parse::<u32>().ok());
    pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

/// Removes mounts and directories of test processes that were killed.
fn clear_stale() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    // The last mounted first: images lie in yards.
    for at in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
        if is_stale(at) {
            let _ = run("umount", &["--lazy", at]);
        }
    }
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let path = entry.path();
        if is_stale(&path.to_string_lossy()) && !path.join(KEPT).exists() {
            let _ = fs::remove_dir_all(&path);
        }
    }
}
