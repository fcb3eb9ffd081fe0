//! Tells when the machine's way to the network may have come back.

/// Completes when the kernel has a new address or route, which is when a network comes back after a suspend, a change of
/// Wi-Fi, or a VPN. Costs nothing while nobody waits; never completes where nothing tells.
#[cfg(target_os = "linux")]
pub async fn changed() {
    let Ok(events) = subscribe() else { return std::future::pending().await };
    if events.readable().await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(not(target_os = "linux"))]
pub async fn changed() {
    std::future::pending::<()>().await;
}

/// A netlink socket (rtnetlink(7)); its messages are not read: that there is one is enough.
#[cfg(target_os = "linux")]
fn subscribe() -> std::io::Result<tokio::net::unix::pipe::Receiver> {
    use rustix::net::netlink::SocketAddrNetlink;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Protocol 0 is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    // The kernel chooses the port.
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    tokio::net::unix::pipe::Receiver::from_owned_fd_unchecked(socket)
}

/// RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE.
#[cfg(target_os = "linux")]
const GROUPS: u32 = 0x10 | 0x40 | 0x100 | 0x400;
