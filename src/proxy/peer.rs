//! Whose connection it is. A port on loopback is open to every user of this machine; on Linux the kernel tells the owner of
//! the other end (sock_diag(7), proc_pid_net(5)).

#[cfg(target_os = "linux")]
use std::net::IpAddr;
use std::net::SocketAddr;

/// The user of the socket at `client` that is connected to `ours`. The error says that the kernel was not asked: it must be
/// looked up in the table.
#[cfg(target_os = "linux")]
pub(super) fn ask(client: SocketAddr, ours: SocketAddr) -> std::io::Result<Option<u32>> {
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};
    use rustix::net::{recv, sendto, socket_with};
    let (IpAddr::V4(from), IpAddr::V4(to)) = (client.ip().to_canonical(), ours.ip().to_canonical()) else {
        return Err(std::io::Error::other("not a connection by IPv4"));
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::SOCK_DIAG))?;
    let (mut request, mut id) = (Vec::with_capacity(REQUEST), [0_u8; ID]);
    id[..2].copy_from_slice(&client.port().to_be_bytes());
    id[2..4].copy_from_slice(&ours.port().to_be_bytes());
    id[4..8].copy_from_slice(&from.octets());
    id[20..24].copy_from_slice(&to.octets());
    // No cookie: we have not seen the socket before.
    id[40..].fill(0xff);
    // struct nlmsghdr: length, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, no sequence, no port.
    request.extend_from_slice(&u32::try_from(REQUEST).expect("a small number").to_ne_bytes());
    request.extend_from_slice(&20_u16.to_ne_bytes());
    request.extend_from_slice(&1_u16.to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    // struct inet_diag_req_v2: AF_INET, IPPROTO_TCP, no extensions, all states, and who.
    request.extend_from_slice(&[2, 6, 0, 0]);
    request.extend_from_slice(&u32::MAX.to_ne_bytes());
    request.extend_from_slice(&id);
    sendto(&socket, &request, SendFlags::empty(), &netlink::SocketAddrNetlink::new(0, 0))?;
    // The kernel has answered before the call returned.
    let mut answer = [0; 512];
    let (length, _) = recv(&socket, &mut answer[..], RecvFlags::DONTWAIT)?;
    read_answer(&answer[..length], &id[..4])
}

/// What the kernel says of one socket: a header, then `struct inet_diag_msg`. `ports` begin its id: a socket that listens at
/// the client's port is another one.
///
/// A socket that nobody has open any more has no inode, and counts as root's. What it has sent may still be on its way.
#[cfg(target_os = "linux")]
fn read_answer(answer: &[u8], ports: &[u8]) -> std::io::Result<Option<u32>> {
    let word = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    let kind = answer.get(4..6).map(|kind| u16::from_ne_bytes([kind[0], kind[1]]));
    match (kind, word(HEADER)) {
        (Some(20), _) => {
            let end = HEADER + 4 + ID + 12;
            let same = answer.get(HEADER + 4..HEADER + 8) == Some(ports);
            Ok(word(end).filter(|_| same && word(end + 4).is_some_and(|inode| inode != 0)))
        }
        // NLMSG_ERROR with -ENOENT: there is no such socket. Other errors say that nobody looked.
        (Some(2), Some(error)) if error.cast_signed() == -2 => Ok(None),
        _ => Err(std::io::Error::other("the kernel has no socket diagnostics")),
    }
}

/// `struct nlmsghdr`.
#[cfg(target_os = "linux")]
const HEADER: usize = 16;

/// `struct inet_diag_sockid`.
#[cfg(target_os = "linux")]
const ID: usize = 48;

/// With `struct inet_diag_req_v2`.
#[cfg(target_os = "linux")]
const REQUEST: usize = HEADER + 8 + ID;

/// The same from the kernel's table of all connections, which takes it milliseconds to write.
#[cfg(target_os = "linux")]
pub(super) fn look_up(client: SocketAddr, ours: SocketAddr) -> Option<u32> {
    // An IPv4 connection of a socket that could also speak IPv6 is in the other table.
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
        let table = std::fs::read_to_string(table).ok()?;
        user_in(&table, client, ours)
    })
}

#[cfg(not(target_os = "linux"))]
pub(super) fn ask(_client: SocketAddr, _ours: SocketAddr) -> std::io::Result<Option<u32>> {
    Ok(None)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn look_up(_client: SocketAddr, _ours: SocketAddr) -> Option<u32> {
    None
}

#[cfg(target_os = "linux")]
fn user_in(table: &str, client: SocketAddr, ours: SocketAddr) -> Option<u32> {
    let ends = [false, true].map(|mapped| (end(client, mapped), end(ours, mapped)));
    table.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (local, remote) = (fields.next()?, fields.next()?);
        ends.iter().find(|(client, ours)| client == local && ours == remote)?;
        // State, queues, timer, retransmissions, user, timeout, inode.
        let user = fields.nth(4)?.parse().ok()?;
        (fields.nth(1)? != "0").then_some(user)
    })
}

/// As the kernel prints it: words of the address in this machine's byte order.
#[cfg(target_os = "linux")]
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
        let own = Some(rustix::process::geteuid().as_raw());
        let both = |client| (ask(client, ours).ok(), look_up(client, ours));
        assert_eq!(both(client), (Some(own), own));
        let mapped = format!("[::ffff:127.0.0.1]:{}", ours.port()).parse::<SocketAddr>().expect("an address");
        let other = TcpStream::connect(mapped).expect("it listens");
        assert_eq!(both(other.local_addr().expect("connected")), (Some(own), own), "by IPv6");
        let nobody = SocketAddr::new(client.ip(), 1);
        assert_eq!(both(nobody), (Some(None), None));
    }

    #[test]
    fn an_answer_that_is_none_is_no_answer() {
        for answer in [&[][..], &[0; 16], &[0xff; 30]] {
            assert!(read_answer(answer, &[0; 4]).is_err(), "{answer:?}");
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let ours = listener.local_addr().expect("bound");
        let stream = TcpStream::connect(ours).expect("it listens");
        let (accepted, client) = listener.accept().expect("it came");
        drop(stream);
        // Its owner has closed it, and it lives on for a while without one.
        assert_eq!((ask(client, ours).ok(), look_up(client, ours)), (Some(None), None));
        drop(accepted);
        // A socket that listens is none that is connected.
        assert_eq!(ask(ours, client).ok(), Some(None));
    }

    #[test]
    fn the_user_is_the_eighth_field() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \u{20}  0: 0100007F:A2C4 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1234        0 99 1\n";
        let at = |port| SocketAddr::new("127.0.0.1".parse().expect("an address"), port);
        if cfg!(target_endian = "little") {
            assert_eq!(user_in(table, at(0xA2C4), at(0x1F90)), Some(1234));
            let nobodys = table.replace(" 99 1", " 0 1");
            assert_eq!(user_in(&nobodys, at(0xA2C4), at(0x1F90)), None, "a socket without a process");
        }
        assert_eq!(user_in(table, at(0x1F90), at(0xA2C4)), None, "our own end");
    }
}
