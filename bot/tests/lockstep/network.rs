//! Everything between bot and exchange: pipes whose requests, replies and frames get lost, late, cut or answered by
//! somebody else, as a seed decides.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use arb_bot::exchange::venue::Dial;
use exchange_simulator::server::Simulator;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{Notify, watch};

const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);
const PIPE: usize = 64 * 1024;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No connection.
    Refused,
    /// The request never arrives, and nobody says so.
    RequestLost,
    /// It is carried out, and nobody says so.
    ReplyLost,
    /// It is carried out, and the connection ends before the reply.
    Cut,
    /// It is carried out, and a gateway answers this.
    GatewayAfter(u16),
    /// It never arrives, and a gateway answers this.
    GatewayInstead(u16),
}

pub const FAULTS: [Fault; 9] = [
    Fault::Refused,
    Fault::RequestLost,
    Fault::ReplyLost,
    Fault::Cut,
    Fault::GatewayAfter(502),
    Fault::GatewayAfter(504),
    Fault::GatewayInstead(401),
    Fault::GatewayInstead(429),
    Fault::GatewayInstead(503),
];

struct State {
    rng: StdRng,
    /// Share of the requests that something happens to.
    fault_rate: f64,
    /// Share of the frames after which a WebSocket is cut, or goes silent.
    cut_rate: f64,
    /// Share of what the exchange sends in which a digit or a letter is another.
    mangle_rate: f64,
    /// Requests to `/orders` and `/orders/close_position` only.
    orders_only: bool,
    /// Steps of requests so far: opened, arrived, answered.
    steps: u64,
    kill_at: Option<u64>,
    /// How often something happened.
    struck: u64,
    /// A host that cannot be reached.
    blocked: Option<String>,
    /// Hosts behind which another exchange is.
    routes: Vec<(String, Arc<Simulator>)>,
}

/// The network of one exchange.
pub struct Network {
    state: Mutex<State>,
    cut: watch::Sender<u64>,
    kill: Notify,
}

impl Network {
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                rng: StdRng::seed_from_u64(seed),
                fault_rate: 0.0,
                cut_rate: 0.0,
                mangle_rate: 0.0,
                orders_only: false,
                steps: 0,
                kill_at: None,
                struck: 0,
                blocked: None,
                routes: Vec::new(),
            }),
            cut: watch::Sender::new(0),
            kill: Notify::new(),
        })
    }

    pub fn dial(self: &Arc<Self>, simulator: Arc<Simulator>) -> Dial {
        let network = Arc::clone(self);
        Dial::new(move |host| {
            let simulator = network.behind(host).unwrap_or(Ok(Arc::clone(&simulator)))?;
            let (bot, ours) = tokio::io::duplex(PIPE);
            let network = Arc::clone(&network);
            tokio::spawn(async move {
                let mut cut = network.cut.subscribe();
                tokio::select! {
                    biased;
                    _ = cut.changed() => {}
                    _ = network.carry(simulator, ours) => {}
                }
            });
            Ok(bot)
        })
    }

    fn behind(&self, host: &str) -> Option<std::io::Result<Arc<Simulator>>> {
        let state = self.state.lock().unwrap();
        if state.blocked.as_deref() == Some(host) {
            return Some(Err(std::io::ErrorKind::ConnectionRefused.into()));
        }
        state.routes.iter().find(|(of, _)| of == host).map(|(_, simulator)| Ok(Arc::clone(simulator)))
    }

    /// Makes a host unreachable, or all reachable again.
    pub fn block(&self, host: Option<&str>) {
        self.state.lock().unwrap().blocked = host.map(str::to_owned);
        if host.is_some() {
            self.cut();
        }
    }

    /// Puts another exchange behind a host.
    pub fn route(&self, host: &str, simulator: Arc<Simulator>) {
        self.state.lock().unwrap().routes.push((host.to_owned(), simulator));
    }

    /// Share of the requests, and of the frames of WebSockets, that something happens to from now on.
    pub fn fail(&self, fault_rate: f64, cut_rate: f64, orders_only: bool) {
        let mut state = self.state.lock().unwrap();
        (state.fault_rate, state.cut_rate, state.orders_only) = (fault_rate, cut_rate, orders_only);
    }

    /// Share of what the exchange sends in which a digit or a letter is another from now on.
    pub fn mangle(&self, rate: f64) {
        self.state.lock().unwrap().mangle_rate = rate;
    }

    /// Changes bytes of the same kind, so that some of what arrives can still be read.
    fn mangled(&self, bytes: &mut [u8]) {
        let mut state = self.state.lock().unwrap();
        let rate = state.mangle_rate;
        if rate == 0.0 || !state.rng.random_bool(rate) || bytes.is_empty() {
            return;
        }
        state.struck += 1;
        for _ in 0..state.rng.random_range(1..6) {
            let at = state.rng.random_range(0..bytes.len());
            bytes[at] = match bytes[at] {
                b'0'..=b'9' => state.rng.random_range(b'0'..=b'9'),
                b'a'..=b'z' | b'A'..=b'Z' => state.rng.random_range(b'a'..=b'z'),
                _ => state.rng.random(),
            };
        }
    }

    /// Ends every connection.
    pub fn cut(&self) {
        self.cut.send_modify(|n| *n += 1);
    }

    /// Asks for the bot's death after so many further steps; [`Self::killed`] tells.
    pub fn kill_after(&self, steps: Option<u64>) {
        let mut state = self.state.lock().unwrap();
        state.kill_at = steps.map(|steps| state.steps + steps);
    }

    pub async fn killed(&self) {
        self.kill.notified().await;
    }

    pub fn steps(&self) -> u64 {
        self.state.lock().unwrap().steps
    }

    pub fn struck(&self) -> u64 {
        self.state.lock().unwrap().struck
    }

    /// One step of a request. The step at which the bot is to die is the last that anybody takes.
    async fn step(&self, is_order: bool) {
        let dies = {
            let mut state = self.state.lock().unwrap();
            if is_order {
                state.steps += 1;
            }
            let steps = state.steps;
            is_order && state.kill_at.take_if(|at| *at <= steps).is_some()
        };
        if dies {
            self.kill.notify_one();
            std::future::pending::<()>().await;
        }
    }

    fn fault(&self, is_order: bool) -> Option<Fault> {
        let mut state = self.state.lock().unwrap();
        let rate = if state.orders_only && !is_order { 0.0 } else { state.fault_rate };
        if rate == 0.0 || !state.rng.random_bool(rate) {
            return None;
        }
        state.struck += 1;
        let pick = state.rng.random_range(0..FAULTS.len());
        Some(FAULTS[pick])
    }

    fn cuts_frame(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        let rate = state.cut_rate;
        let cuts = rate > 0.0 && state.rng.random_bool(rate);
        state.struck += u64::from(cuts);
        cuts
    }

    async fn carry(&self, simulator: Arc<Simulator>, mut bot: DuplexStream) -> Option<()> {
        let mut buffer = vec![0; PIPE];
        let length = bot.read(&mut buffer).await.ok().filter(|length| *length > 0)?;
        let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let is_web_socket = request.starts_with("GET /ws");
        let is_order = ["POST /api/v3/brokerage/orders ", "POST /api/v3/brokerage/orders/close_position "]
            .iter()
            .any(|start| request.starts_with(start));
        self.step(is_order).await;
        let fault = if is_web_socket { None } else { self.fault(is_order) };
        match fault {
            Some(Fault::Refused) => return None,
            Some(Fault::RequestLost) => std::future::pending().await,
            Some(Fault::GatewayInstead(status)) => return answer(&mut bot, status).await,
            _ => {}
        }
        let (mut exchange, theirs) = tokio::io::duplex(PIPE);
        tokio::spawn(async move { simulator.serve_connection(theirs, PEER).await });
        exchange.write_all(&buffer[..length]).await.ok()?;
        let mut back = vec![0; PIPE];
        let mut answered = false;
        loop {
            tokio::select! {
                biased;
                read = exchange.read(&mut back) => {
                    let length = read.ok().filter(|length| *length > 0)?;
                    if !answered {
                        answered = true;
                        self.step(is_order).await;
                        match fault {
                            Some(Fault::ReplyLost) => std::future::pending().await,
                            Some(Fault::Cut) => return None,
                            Some(Fault::GatewayAfter(status)) => return answer(&mut bot, status).await,
                            _ => {}
                        }
                    } else if is_web_socket && self.cuts_frame() {
                        // Half of those that end say nothing.
                        if length % 2 == 0 { return None }
                        std::future::pending().await
                    }
                    self.mangled(&mut back[..length]);
                    bot.write_all(&back[..length]).await.ok()?;
                    self.step(is_order).await;
                }
                read = bot.read(&mut buffer) => {
                    let length = read.ok().filter(|length| *length > 0)?;
                    exchange.write_all(&buffer[..length]).await.ok()?;
                }
            }
        }
    }
}

async fn answer(bot: &mut DuplexStream, status: u16) -> Option<()> {
    let reply = format!("HTTP/1.1 {status} Fault\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    bot.write_all(reply.as_bytes()).await.ok()
}
