//! How much memory the machine has to give.

use std::path::Path;

/// Bytes that this process can get before the system has to take them from others; `None` if the system does not
/// say. A limit of the control group, such as a container's, counts.
pub fn available() -> Option<usize> {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).ok();
    let system = read("/proc/meminfo").and_then(|text| of_meminfo(&text));
    let group = of_group(
        read("/sys/fs/cgroup/memory.max").as_deref(),
        read("/sys/fs/cgroup/memory.current").as_deref(),
    );
    [system, group].into_iter().flatten().min()
}

fn of_meminfo(text: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1 << 10)
}

fn of_group(most: Option<&str>, current: Option<&str>) -> Option<usize> {
    let most: usize = most?.trim().parse().ok()?;
    Some(most.saturating_sub(current?.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_says_is_understood() {
        let text = "MemTotal:  16000 kB\nMemAvailable:    8192 kB\n";
        assert_eq!(of_meminfo(text), Some(8 << 20));
        assert_eq!(of_meminfo("MemTotal: 1 kB\n"), None);
        assert_eq!(of_group(Some("1000\n"), Some("400\n")), Some(600));
        assert_eq!(of_group(Some("1000\n"), Some("4000\n")), Some(0));
        assert_eq!((of_group(Some("max\n"), Some("400\n")), of_group(None, None)), (None, None));
    }
}
