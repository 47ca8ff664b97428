//! A small disk that only the processes started on it see, and what a test may do to it: fill it, write-protect it.
//!
//! It is a tmpfs in a mount namespace of its own. A process that does nothing holds the namespace; others are started in
//! it, and the test reaches its files through `/proc/<holder>/root`. When the holder ends, so does the disk, and outside
//! nothing was ever mounted.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::worker::WorkerConfig;

/// Mounts a tmpfs of `$2` bytes at `$1`, says so, and ends with its input.
const HOLD: &str = r#"mount -t tmpfs -o "size=$2,mode=700" tmpfs "$1" && echo mounted && exec cat"#;
/// What fills the disk.
const BALLAST: &str = "ballast";
const CHUNK: usize = 1 << 16;

/// A small disk; gone when dropped.
#[derive(Debug)]
pub struct Disk {
    holder: Child,
    at: PathBuf,
}

impl Disk {
    /// A disk of so many bytes, seen at `at` by whoever is on it. The directory is made.
    ///
    /// # Errors
    /// The kernel refuses a mount namespace to this user; the message says what allows it.
    pub fn new(at: &Path, bytes: u64) -> Result<Self> {
        fs::create_dir_all(at).with_context(|| format!("cannot make {}", at.display()))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--mount"]);
        if !nix::unistd::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["sh", "-c", HOLD, "sh"]).arg(at).arg(bytes.to_string());
        let mut holder =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start setpriv")?;
        let stdout = holder.stdout.take().expect("it is piped");
        let disk = Self { holder, at: at.to_owned() };
        let mut said = String::new();
        BufReader::new(stdout).read_line(&mut said).context("cannot read from the disk's holder")?;
        ensure!(
            said == "mounted\n",
            "no small disk can be mounted, in a mount namespace of its own: run as root with CAP_SYS_ADMIN, or allow user \
             namespaces (sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns=0)"
        );
        Ok(disk)
    }

    /// Where this process finds its files.
    pub fn path(&self) -> PathBuf {
        let at = self.at.strip_prefix("/").expect("the paths of tests are absolute");
        PathBuf::from(format!("/proc/{}/root", self.holder.id())).join(at)
    }

    /// A worker that is started on it.
    #[must_use]
    pub fn worker(&self, mut config: WorkerConfig) -> WorkerConfig {
        config.within = self.enter();
        config
    }

    /// Takes the last byte of room; again, if some has come back.
    pub fn fill(&self) -> Result<()> {
        let ballast = File::options().create(true).append(true).open(self.path().join(BALLAST));
        let mut ballast = ballast.context("cannot open the ballast")?;
        let mut chunk = CHUNK;
        while chunk > 0 {
            match ballast.write(&vec![0; chunk]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => chunk /= 2,
                Err(error) => return Err(error).context("cannot fill the disk"),
            }
        }
        Ok(())
    }

    /// Gives the room back that [`Disk::fill`] took.
    pub fn free(&self) -> Result<()> {
        fs::remove_file(self.path().join(BALLAST)).context("cannot remove the ballast")
    }

    /// Forbids every write, or allows them again. Nobody may have a file of it open for writing.
    pub fn write_protect(&self, protect: bool) -> Result<()> {
        let [program, arguments @ ..] = &self.enter()[..] else { unreachable!("it begins with a program") };
        let mode = if protect { "remount,ro" } else { "remount,rw" };
        let status = Command::new(program).args(arguments).args(["mount", "-o", mode]).arg(&self.at).status();
        let status = status.context("cannot start nsenter")?;
        ensure!(status.success(), "mount -o {mode} {} failed: {status}", self.at.display());
        Ok(())
    }

    /// What starts a program on it.
    fn enter(&self) -> Vec<String> {
        let holder = self.holder.id().to_string();
        let mut words = vec!["nsenter", "--target", &holder, "--mount"];
        if !nix::unistd::geteuid().is_root() {
            words.extend(["--user", "--preserve-credentials"]);
        }
        words.into_iter().map(str::to_owned).collect()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.holder.kill(); // it may have failed to mount, and ended
        let _ = self.holder.wait();
    }
}
