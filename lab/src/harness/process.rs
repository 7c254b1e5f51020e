//! Processes of this machine, as `/proc` tells of them.

use std::path::Path;
use std::time::Duration;

/// The kernel's unit of CPU time in `/proc`, the same on every Linux that Rust's std supports.
const TICK: Duration = Duration::from_millis(10);
/// Of the machines that the benchmark is for; with larger pages it tells too little memory.
const PAGE_BYTES: u64 = 4_096;

/// The fields of `/proc/PID/stat` that matter here.
#[derive(Debug, PartialEq, Eq)]
pub struct ProcessStat {
    /// Of the program.
    pub name: String,
    /// Memory that it holds.
    pub resident_bytes: u64,
    /// The process that started it.
    pub parent: u32,
    /// Its CPU time.
    pub own_cpu: Duration,
    /// CPU time of processes it started that have ended.
    pub ended_children_cpu: Duration,
}

impl ProcessStat {
    /// The processes that this one started.
    pub fn children_of(parent: u32) -> Vec<u32> {
        let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
        let processes = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        processes.filter(|process| Self::read(*process).is_some_and(|stat| stat.parent == parent)).collect()
    }

    /// Of a running process.
    pub fn read(pid: u32) -> Option<Self> {
        let path = Path::new("/proc").join(pid.to_string()).join("stat");
        Self::parse(&std::fs::read_to_string(path).ok()?)
    }

    /// `pid (name) state ppid ...`; the name may hold spaces and parentheses.
    fn parse(line: &str) -> Option<Self> {
        let (head, rest) = line.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // proc(5) counts from 1 and the state is its field 3.
        let ticks = |number: usize| fields.get(number - 3)?.parse::<u32>().ok();
        Some(Self {
            name: name.to_owned(),
            resident_bytes: fields.get(24 - 3)?.parse::<u64>().ok()? * PAGE_BYTES,
            parent: ticks(4)?,
            own_cpu: TICK * (ticks(14)?.checked_add(ticks(15)?)?),
            ended_children_cpu: TICK * (ticks(16)?.checked_add(ticks(17)?)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines_with_odd_names_are_read() {
        let line = "4242 (postgres: a) b) S 17 4242 4242 0 -1 4194560 900 80 0 0 150 50 7 3 20 0 1 0 12345 1 2 3";
        let stat = ProcessStat::parse(line).unwrap();
        assert_eq!((stat.name.as_str(), stat.parent), ("postgres: a) b", 17));
        assert_eq!(stat.resident_bytes, 2 * PAGE_BYTES);
        assert_eq!((stat.own_cpu, stat.ended_children_cpu), (TICK * 200, TICK * 10));
        assert_eq!(ProcessStat::parse("4242 (postgres) S"), None);
    }
}
