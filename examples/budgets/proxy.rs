//! The loopback proxy beside nginx, which makes the same change to the same requests: both in front of one nginx that
//! swallows whatever comes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::Result;
use crate::setup::{Daemon, Running, Setup, ask, until};
use crate::table::{Bound, Table, median};

/// What a client sends its requests to.
struct Contender<'a> {
    port: u16,
    authorization: String,
    process: &'a Running,
}

pub(crate) fn beside_nginx(setup: &Setup, table: &mut Table) -> Result {
    let sink = match nginx(setup, "sink", SINK, 0) {
        Ok(sink) => sink,
        Err(error) => {
            table.skip("the loopback proxy / nginx", &error);
            return Ok(());
        }
    };
    let nginx = nginx(setup, "peer", PEER, sink.1)?;
    let daemon = setup.daemon_of("proxied", &format!("http://127.0.0.1:{}", sink.1))?;
    let idle = daemon.running.resident()?;
    let job = format!(r#"{{"pid":{},"proxy":true}}"#, std::process::id());
    let job: serde_json::Value =
        serde_json::from_slice(&ask(&daemon.socket, "POST", "/v1/jobs", job.as_bytes())?)?;
    let port = job["proxy"]["port"].as_u64().and_then(|port| port.try_into().ok()).context("a port")?;
    let key = job["proxy"]["key"].as_str().context("a key")?;
    let authorization = format!("Authorization: Basic {}\r\n", base64(&format!("api:{key}")));
    let ours = Contender { port, authorization: authorization.clone(), process: &daemon.running };
    let theirs = Contender { port: nginx.1, authorization, process: &nginx.0 };

    for connections in [16, 64] {
        let (mut speed, mut cpu) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (own, peer) = (ours.requests(connections)?, theirs.requests(connections)?);
            speed.push(own.0 / peer.0);
            cpu.push(own.1 / peer.1);
        }
        let (speed, cpu) = (median(&mut speed), median(&mut cpu));
        let figure = format!("requests/s of the loopback proxy / nginx, {connections} connections");
        table.add(figure, Bound::AtLeast(0.7), speed, format!("{speed:.2}"));
        let figure = format!("CPU a request of the loopback proxy / nginx, {connections} connections");
        table.add(figure, Bound::AtMost(1.5), cpu, format!("{cpu:.2}"));
    }
    let mut times = Vec::new();
    for _ in 0..3 {
        times.push(ours.upload()? / theirs.upload()?);
    }
    let time = median(&mut times);
    table.add("1 GiB through the loopback proxy / nginx", Bound::AtMost(1.25), time, format!("{time:.2}"));
    let more = (daemon.running.resident()?.saturating_sub(idle)) as f64 / 1024.0;
    table.add(
        "RSS after that over idle, 64 streams",
        Bound::AtMost(2.0 * 64.0),
        more,
        format!("{more:.1} MiB"),
    );
    let (mut alone, mut by_nginx, mut by_us) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.push(p99_of_tokens(&daemon)?);
        // What the machine's other core costs, whoever moves the bytes.
        by_nginx.push(p99_during_an_upload(&daemon, &theirs)?);
        by_us.push(p99_during_an_upload(&daemon, &ours)?);
    }
    let (alone, by_nginx, by_us) = (median(&mut alone), median(&mut by_nginx), median(&mut by_us));
    let shown = |busy: f64| format!("{:.2} ({:.0} us / {:.0} us)", busy / alone, busy * 1e6, alone * 1e6);
    let figure = "p99 of a cached token during an upload / idle";
    table.add(figure, Bound::AtMost(1.2), by_us / alone, shown(by_us));
    let figure = "the same during an upload through nginx, for comparison";
    table.add(figure, Bound::AtLeast(0.0), by_nginx / alone, shown(by_nginx));
    Ok(())
}

impl Contender<'_> {
    /// Requests a second, and seconds of CPU a request.
    fn requests(&self, connections: usize) -> Result<(f64, f64)> {
        let request = format!(
            "POST /files/e/p/r/file_stream HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n{}Content-Length: 256\r\n\r\n{}",
            self.port,
            self.authorization,
            "x".repeat(256)
        );
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let clients: Vec<_> = (0..connections)
            .map(|_| {
                let (stop, done, request) = (Arc::clone(&stop), Arc::clone(&done), request.clone());
                let stream = TcpStream::connect(("127.0.0.1", self.port));
                std::thread::spawn(move || -> Result {
                    let mut stream = BufReader::new(stream?);
                    while !stop.load(Ordering::Relaxed) {
                        stream.get_mut().write_all(request.as_bytes())?;
                        answer(&mut stream)?;
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(200));
        let (before, cpu, began) = (done.load(Ordering::Relaxed), self.process.cpu()?, Instant::now());
        std::thread::sleep(TURN);
        let count = (done.load(Ordering::Relaxed) - before) as f64;
        let (seconds, cpu) = (began.elapsed().as_secs_f64(), self.process.cpu()? - cpu);
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().ok().context("a client panicked")??;
        }
        Ok((count / seconds, cpu / count))
    }

    /// Seconds for 1 GiB.
    fn upload(&self) -> Result<f64> {
        let began = Instant::now();
        let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", self.port))?);
        let head = format!(
            "PUT /files/x HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n{}Content-Length: {}\r\n\r\n",
            self.port, self.authorization, GIBIBYTE
        );
        stream.get_mut().write_all(head.as_bytes())?;
        let piece = vec![0; 256 * 1024];
        for _ in 0..GIBIBYTE / piece.len() {
            stream.get_mut().write_all(&piece)?;
        }
        answer(&mut stream)?;
        Ok(began.elapsed().as_secs_f64())
    }
}

/// Seconds at the 99th percentile.
fn p99_of_tokens(daemon: &Daemon) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..2000 {
        let began = Instant::now();
        daemon.token()?;
        times.push(began.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() * 99 / 100])
}

/// The same while a body streams through `proxy`.
fn p99_during_an_upload(daemon: &Daemon, proxy: &Contender<'_>) -> Result<f64> {
    std::thread::scope(|scope| {
        let upload = scope.spawn(|| proxy.upload());
        let p99 = p99_of_tokens(daemon);
        upload.join().ok().context("the upload panicked")??;
        p99
    })
}

/// Reads one answer with a length.
fn answer(stream: &mut BufReader<TcpStream>) -> Result {
    let (mut length, mut line, mut first) = (0, String::new(), true);
    loop {
        line.clear();
        anyhow::ensure!(stream.read_line(&mut line)? > 0, "the connection ended");
        anyhow::ensure!(!first || line.starts_with("HTTP/1.1 200"), "{line}");
        first = false;
        if line == "\r\n" {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    Ok(stream.read_exact(&mut body)?)
}

/// Starts an nginx of one process with this server in its configuration.
fn nginx(setup: &Setup, name: &str, server: &str, upstream: u16) -> Result<(Running, u16)> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let folder = setup.dir.path().join(name);
    std::fs::create_dir_all(&folder)?;
    let place = folder.display();
    let server = server.replace("PORT", &port.to_string()).replace("UPSTREAM", &upstream.to_string());
    let config = format!(
        "master_process off;\ndaemon off;\npid {place}/pid;\nerror_log {place}/error.log;\nevents {{ worker_connections 1024; }}\n\
         http {{\naccess_log off;\nclient_max_body_size 0;\nkeepalive_requests 100000000;\nclient_body_temp_path {place}/body;\n\
         proxy_temp_path {place}/proxy;\n{server}\n}}\n"
    );
    let path = folder.join("nginx.conf");
    std::fs::write(&path, config)?;
    let running = nginx_process(&path)?;
    until("nginx listens", || TcpStream::connect(("127.0.0.1", port)).is_ok())?;
    Ok((running, port))
}

fn nginx_process(config: &Path) -> Result<Running> {
    let mut command = Command::new("nginx");
    command.arg("-c").arg(config).stdin(Stdio::null()).stderr(Stdio::null());
    Ok(Running(command.spawn().context("nginx")?))
}

fn base64(text: &str) -> String {
    use ::base64::Engine as _;
    ::base64::engine::general_purpose::STANDARD.encode(text)
}

/// Takes everything, and is the token endpoint too.
const SINK: &str = r#"server { listen 127.0.0.1:PORT;
location = /oidc/token { default_type application/json;
  return 200 '{"access_token":"wb_at_bench","token_type":"Bearer","expires_in":36000}'; }
location / { default_type application/json; return 200 '{"exitcode":null,"limits":{}}'; } }"#;

/// The same header swap.
const PEER: &str = r#"upstream w { server 127.0.0.1:UPSTREAM; keepalive 64; keepalive_requests 100000000; }
server { listen 127.0.0.1:PORT; location / { proxy_pass http://w; proxy_http_version 1.1; proxy_set_header Connection "";
  proxy_set_header Authorization "Bearer wb_at_bench"; proxy_request_buffering off; } }"#;

const ROUNDS: usize = 5;
const TURN: Duration = Duration::from_secs(1);
const GIBIBYTE: usize = 1024 * 1024 * 1024;
