//! Everything between bot and exchange: pipes whose requests, replies and frames get lost, late, cut or answered by
//! somebody else, as a seed decides.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use arb_bot::exchange::venue::Dial;
use exchange_simulator::server::Simulator;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::transcript::{Transcript, Wire};

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

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::Refused => "connection_refused",
            Self::RequestLost => "request_lost",
            Self::ReplyLost => "reply_lost",
            Self::Cut => "reply_cut",
            Self::GatewayAfter(_) => "gateway_after",
            Self::GatewayInstead(_) => "gateway_instead",
        }
    }
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
    /// How often each thing happened.
    struck: BTreeMap<&'static str, u64>,
    /// A host that cannot be reached.
    blocked: Option<String>,
    /// Hosts behind which another exchange is.
    routes: Vec<(String, Arc<Simulator>)>,
}

/// The network of one exchange.
pub struct Network {
    state: Mutex<State>,
    pub transcript: Mutex<Transcript>,
    /// Ends all connections there are. They end in the order they began: a watch would wake them in a random one.
    cut: Mutex<CancellationToken>,
    kill: Notify,
    /// Looks at the body of an order when its first byte arrives.
    on_order: Mutex<Option<Look>>,
}

type Look = Box<dyn Fn(&str) + Send>;

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
                struck: BTreeMap::new(),
                blocked: None,
                routes: Vec::new(),
            }),
            transcript: Mutex::default(),
            cut: Mutex::default(),
            kill: Notify::new(),
            on_order: Mutex::default(),
        })
    }

    pub fn dial(self: &Arc<Self>, simulator: Arc<Simulator>) -> Dial {
        let network = Arc::clone(self);
        Dial::new(move |host| {
            let simulator = network.behind(host).unwrap_or(Ok(Arc::clone(&simulator)))?;
            let (bot, ours) = tokio::io::duplex(PIPE);
            let network = Arc::clone(&network);
            let cut = network.cut.lock().unwrap().clone();
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    () = cut.cancelled() => {}
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
        *state.struck.entry("mangled").or_default() += 1;
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
        std::mem::take(&mut *self.cut.lock().unwrap()).cancel();
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

    /// Has every order looked at from now on, when its first byte arrives.
    pub fn on_order(&self, look: impl Fn(&str) + Send + 'static) {
        *self.on_order.lock().unwrap() = Some(Box::new(look));
    }

    /// How often each thing happened.
    pub fn struck(&self) -> BTreeMap<&'static str, u64> {
        self.state.lock().unwrap().struck.clone()
    }

    fn strike(&self, name: &'static str) {
        *self.state.lock().unwrap().struck.entry(name).or_default() += 1;
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
        let pick = state.rng.random_range(0..FAULTS.len());
        *state.struck.entry(FAULTS[pick].name()).or_default() += 1;
        Some(FAULTS[pick])
    }

    fn cuts_frame(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        let rate = state.cut_rate;
        rate > 0.0 && state.rng.random_bool(rate)
    }

    async fn carry(&self, simulator: Arc<Simulator>, mut bot: DuplexStream) -> Option<()> {
        let mut buffer = vec![0; PIPE];
        let length = bot.read(&mut buffer).await.ok().filter(|length| *length > 0)?;
        let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let is_web_socket = request.starts_with("GET /ws");
        let is_order = ["POST /api/v3/brokerage/orders ", "POST /api/v3/brokerage/orders/close_position "]
            .iter()
            .any(|start| request.starts_with(start));
        if let (true, Some(look)) = (is_order, &*self.on_order.lock().unwrap()) {
            look(request.split_once("\r\n\r\n").map_or("", |(_, body)| body));
        }
        let mut wire = Wire::new(&mut self.transcript.lock().unwrap(), is_web_socket);
        wire.sent(&mut self.transcript.lock().unwrap(), &buffer[..length]);
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
                    wire.answered(&mut self.transcript.lock().unwrap(), &back[..length]);
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
                        if length % 2 == 0 {
                            self.strike("web_socket_cut");
                            return None;
                        }
                        self.strike("web_socket_frozen");
                        std::future::pending().await
                    }
                    self.mangled(&mut back[..length]);
                    bot.write_all(&back[..length]).await.ok()?;
                    self.step(is_order).await;
                }
                read = bot.read(&mut buffer) => {
                    let length = read.ok().filter(|length| *length > 0)?;
                    wire.sent(&mut self.transcript.lock().unwrap(), &buffer[..length]);
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
