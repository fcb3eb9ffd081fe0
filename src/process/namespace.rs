//! Numbers of processes across PID namespaces: a caller in a container names itself and its parents by the container's
//! numbers, which mean other processes here.

/// The process that a peer means by the number `named`. `peer` is the peer's own number in our namespace, as the kernel
/// says it.
///
/// In our own namespace that is the process with this number. A peer in a namespace below ours can only mean itself or
/// one it descends from, such as the shell that runs it; `None` for any other.
pub fn meant_by(peer: u32, named: u32) -> Option<u32> {
    if named == peer {
        return Some(peer);
    }
    // Without /proc nothing is known of namespaces.
    let Some(status) = Status::of(peer) else { return Some(named) };
    if status.numbers.len() <= 1 {
        return Some(named);
    }
    ancestor(peer, named, status.numbers.len(), Status::of)
}

/// Looks for the number that is `named` at this depth of namespaces, from the peer on up.
fn ancestor(peer: u32, named: u32, depth: usize, look: impl Fn(u32) -> Option<Status>) -> Option<u32> {
    let mut pid = peer;
    for _ in 0..MAX_ANCESTORS {
        let status = look(pid)?;
        // A process above the namespace has no number in it.
        if status.numbers.get(depth - 1)? == &named {
            return Some(pid);
        }
        pid = status.parent;
    }
    None
}

/// What `/proc/PID/status` says of a process (proc_pid_status(5)).
struct Status {
    parent: u32,
    /// Its number in our namespace, and in each one below.
    numbers: Vec<u32>,
}

impl Status {
    fn of(pid: u32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
    }

    fn parse(status: &str) -> Option<Self> {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let numbers = field("NSpid")?.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>();
        Some(Self { parent: field("PPid")?.trim().parse().ok()?, numbers: numbers.ok()? })
    }
}

/// Deeper trees do not matter here.
const MAX_ANCESTORS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_in_a_container_means_itself_or_a_parent_by_the_containers_numbers() {
        // 900 runs the container: number 1 in it is 901 here, its shell 7 is 907, and the peer 9 is 909.
        let look = |pid| {
            let (parent, numbers) = match pid {
                909 => (907, vec![909, 9]),
                907 => (901, vec![907, 7]),
                901 => (900, vec![901, 1]),
                900 => (1, vec![900]),
                _ => return None,
            };
            Some(Status { parent, numbers })
        };
        let meant = |named| ancestor(909, named, 2, look);
        assert_eq!((meant(9), meant(7), meant(1)), (Some(909), Some(907), Some(901)));
        assert_eq!(meant(900), None, "a number of ours");
        assert_eq!(meant(8), None, "a process beside it");
    }

    #[test]
    fn in_our_own_namespace_a_number_means_what_it_says() {
        let status = Status::of(std::process::id()).expect("/proc");
        assert_eq!(meant_by(std::process::id(), status.parent), Some(status.parent));
        assert_eq!(Status::parse("Name:\tx\nPPid:\t4\nNSpid:\t5\t1\n").expect("read").numbers, [5, 1]);
    }
}
