//! Clocks that run fast or slow, or are set: a library that is preloaded into replicas and into Postgres (`clock.c`).

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};

use anyhow::{Context, Result, bail};

const SOURCE: &str = include_str!("clock.c");

/// Variables of a process.
pub type Environment = Vec<(String, String)>;

/// The library, and the file that sets Postgres's clock.
#[derive(Debug)]
pub struct Clocks {
    shared_object: PathBuf,
    setting: PathBuf,
    ahead_micros: AtomicI64,
}

impl Clocks {
    /// Builds the library in this folder.
    ///
    /// # Errors
    /// There is no C compiler `cc`, or it does not build this.
    pub fn build(folder: &Path) -> Result<Self> {
        let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
        fs::write(&source, SOURCE).context("cannot write the source of the clocks")?;
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O2", "-o"]).arg(&library).arg(&source);
        let built = compiler.output().context("there is no C compiler `cc`")?;
        if !built.status.success() {
            bail!("the C compiler `cc` fails: {}", String::from_utf8_lossy(&built.stderr).trim());
        }
        let setting = folder.join("clock-ahead");
        fs::write(&setting, 0_i64.to_ne_bytes()).context("cannot write the setting of the clock")?;
        Ok(Self { shared_object: library, setting, ahead_micros: AtomicI64::new(0) })
    }

    /// A process whose clocks run so many parts in a million fast.
    pub fn drifting(&self, ppm: i64) -> Environment {
        vec![self.preload(), ("DMS_CLOCK_PPM".into(), ppm.to_string())]
    }

    /// A process whose wall clock is set by [`Clocks::step`].
    pub fn settable(&self) -> Environment {
        vec![self.preload(), ("DMS_CLOCK_FILE".into(), self.setting.to_string_lossy().into_owned())]
    }

    fn preload(&self) -> (String, String) {
        ("LD_PRELOAD".into(), self.shared_object.to_string_lossy().into_owned())
    }

    /// Sets the wall clock ahead by so many microseconds, or back.
    pub fn step(&self, micros: i64) -> Result<()> {
        let ahead = self.ahead_micros.fetch_add(micros, Ordering::Relaxed) + micros;
        // In place: whoever has mapped the file sees it.
        let file = File::options().write(true).open(&self.setting).context("cannot open the setting of the clock")?;
        file.write_all_at(&ahead.to_ne_bytes(), 0).context("cannot set the clock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds that a clock of a process shows, after a little while.
    fn seconds(environment: Environment) -> i64 {
        let mut date = Command::new("date");
        let output = date.arg("+%s").envs(environment).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().parse().unwrap()
    }

    #[test]
    fn a_preloaded_process_has_its_clock_set() {
        let folder = std::env::temp_dir().join(format!("dms-clocks-{:016x}", rand::random::<u64>()));
        fs::create_dir_all(&folder).unwrap();
        let clocks = Clocks::build(&folder).expect("a C compiler is needed to test the faults of clocks");
        let now = seconds(Vec::new());
        assert!((seconds(clocks.settable()) - now).abs() <= 5);
        clocks.step(3 * 86_400_000_000).unwrap();
        assert!((seconds(clocks.settable()) - now - 3 * 86_400).abs() <= 5);
        clocks.step(-4 * 86_400_000_000).unwrap();
        assert!((seconds(clocks.settable()) - now + 86_400).abs() <= 5);
        assert!((seconds(clocks.drifting(50_000)) - now).abs() <= 5, "it has just begun to drift");
        fs::remove_dir_all(&folder).unwrap();
    }
}
