//! Whose connection it is. A port on loopback is open to every user of this machine; on Linux the kernel tells the owner of
//! the other end (proc_pid_net(5)).

use std::net::{IpAddr, SocketAddr};

/// The user of the socket at `client` that is connected to `ours`; `None` where the kernel does not say.
#[cfg(target_os = "linux")]
pub(super) fn user(client: SocketAddr, ours: SocketAddr) -> Option<u32> {
    // An IPv4 connection of a socket that could also speak IPv6 is in the other table.
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
        let table = std::fs::read_to_string(table).ok()?;
        user_in(&table, client, ours)
    })
}

#[cfg(not(target_os = "linux"))]
pub(super) fn user(_client: SocketAddr, _ours: SocketAddr) -> Option<u32> {
    None
}

fn user_in(table: &str, client: SocketAddr, ours: SocketAddr) -> Option<u32> {
    let ends = [false, true].map(|mapped| (end(client, mapped), end(ours, mapped)));
    table.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (local, remote) = (fields.next()?, fields.next()?);
        ends.iter().find(|(client, ours)| client == local && ours == remote)?;
        // State, queues, timer, retransmissions, user.
        fields.nth(4)?.parse().ok()
    })
}

/// As the kernel prints it: words of the address in this machine's byte order.
fn end(address: SocketAddr, mapped: bool) -> String {
    let octets = match address.ip().to_canonical() {
        IpAddr::V4(ip) if mapped => ip.to_ipv6_mapped().octets().to_vec(),
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let mut text = String::new();
    for word in octets.chunks_exact(4) {
        let word: [u8; 4] = word.try_into().expect("chunks of four");
        text += &format!("{:08X}", u32::from_ne_bytes(word));
    }
    text + &format!(":{:04X}", address.port())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_kernel_tells_whose_connection_it_is() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let ours = listener.local_addr().expect("bound");
        let stream = TcpStream::connect(ours).expect("it listens");
        let client = stream.local_addr().expect("connected");
        assert_eq!(user(client, ours), Some(rustix::process::geteuid().as_raw()));
        let mapped = format!("[::ffff:127.0.0.1]:{}", ours.port()).parse::<SocketAddr>().expect("an address");
        let stream = TcpStream::connect(mapped).expect("it listens");
        let client = stream.local_addr().expect("connected");
        assert_eq!(user(client, ours), Some(rustix::process::geteuid().as_raw()), "by IPv6: {client}");
        drop(stream);
        let nobody = SocketAddr::new(client.ip(), 1);
        assert_eq!(user(nobody, ours), None);
    }

    #[test]
    fn the_user_is_the_eighth_field() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \u{20}  0: 0100007F:A2C4 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1234        0 99 1\n";
        let at = |port| SocketAddr::new("127.0.0.1".parse().expect("an address"), port);
        if cfg!(target_endian = "little") {
            assert_eq!(user_in(table, at(0xA2C4), at(0x1F90)), Some(1234));
        }
        assert_eq!(user_in(table, at(0x1F90), at(0xA2C4)), None, "our own end");
    }
}
