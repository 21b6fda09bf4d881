//! What the system says of this process. It does not know what the process is.

use std::fs;

/// Ticks of a clock in which the system counts CPU time; all Linux systems tell it so.
const TICKS: f64 = 100.0;

/// What the system says. `None` where it does not.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Process {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) virtual_bytes: Option<u64>,
    pub(super) open_fds: Option<u64>,
    pub(super) max_fds: Option<u64>,
    pub(super) start_seconds: Option<f64>,
    pub(super) threads: Option<u64>,
}

impl Process {
    /// As it is now. These files are made by the system as they are read, from memory.
    pub(super) fn now() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let open = fs::read_dir("/proc/self/fd");
        Self {
            // One of them is the folder that is being read.
            open_fds: open
                .ok()
                .map(|open| (open.count() as u64).saturating_sub(1)),
            ..Self::of(
                &read("/proc/self/stat"),
                &read("/proc/self/status"),
                &read("/proc/self/limits"),
                &read("/proc/stat"),
            )
        }
    }

    fn of(stat: &str, status: &str, limits: &str, system: &str) -> Self {
        // The name before may hold spaces; this is the third field then.
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .map(|(_, rest)| rest.split_whitespace().collect())
            .unwrap_or_default();
        let ticks = |at: usize| -> Option<f64> { fields.get(at - 3)?.parse().ok() };
        let line = |text: &str, name: &str| -> Option<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let kilobytes = |name| Some(line(status, name)? * 1024);
        let boot = line(system, "btime ");
        Self {
            cpu_seconds: ticks(14)
                .zip(ticks(15))
                .map(|(user, own)| (user + own) / TICKS),
            resident_bytes: kilobytes("VmRSS:"),
            virtual_bytes: kilobytes("VmSize:"),
            open_fds: None,
            max_fds: line(limits, "Max open files"),
            start_seconds: ticks(22)
                .zip(boot)
                .map(|(after, boot)| boot as f64 + after / TICKS),
            threads: line(status, "Threads:"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_read_by_its_place() {
        let stat = "4242 (a (strange) name) S 1 4242 4242 0 -1 4194560 9000 0 1 0 250 150 0 0 20 0 5 0 12345 1000000 2500 18446744073709551615";
        let status = "Name:\ta\nVmSize:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t5\n";
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 4096                 files\n";
        let expected = Process {
            cpu_seconds: Some(4.0),
            resident_bytes: Some(1 << 20),
            virtual_bytes: Some(2 << 20),
            open_fds: None,
            max_fds: Some(1024),
            start_seconds: Some(1_000_123.45),
            threads: Some(5),
        };
        let system = "cpu  1 2 3\nbtime 1000000\n";
        assert_eq!(Process::of(stat, status, limits, system), expected);
        assert_eq!(Process::of("", "", "", ""), Process::default());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_told_of() {
        let now = Process::now();
        assert!(now.resident_bytes > Some(1 << 20), "{now:?}");
        assert!(
            now.open_fds > Some(2) && now.max_fds >= now.open_fds,
            "{now:?}"
        );
        assert!(
            now.threads >= Some(1) && now.start_seconds > Some(1e9),
            "{now:?}"
        );
        assert!(now.cpu_seconds.is_some(), "{now:?}");
    }
}
