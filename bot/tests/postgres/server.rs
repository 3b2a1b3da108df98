//! A real PostgreSQL server, of the Debian package `postgresql`. It ends with this process, however that ends, and
//! leaves nothing behind.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

/// Runs the server ("$@") and does as it is told: signals it, or starts it again. Its input ends with the test's
/// process, even one that is killed; then the server is stopped and its directory removed.
const KEEPER: &str = r#"
trap '' INT TERM
dir=$1
shift
start() { "$@" >>"$dir/log" 2>&1 </dev/null & pid=$!; }
start "$@"
while read -r order; do
  case $order in
    start) start "$@" ;;
    *) kill "-$order" "$pid"; wait "$pid" ;;
  esac
done
kill -QUIT "$pid" 2>/dev/null
wait
rm -rf "$dir"
"#;

const PASSWORD: &str = "do-not-show-this";
/// What a server says that is started while the processes of a killed one are still ending.
const REFUSED: &str = "pre-existing shared memory block";
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Server {
    keeper: Mutex<Child>,
    dir: PathBuf,
    port: u16,
    names: AtomicU32,
}

impl Server {
    /// Starts one with these settings beside its own, `name=value`.
    pub fn start(settings: &[&str]) -> Self {
        let programs = programs();
        let dir = tempfile::Builder::new().prefix("arbbot-postgres-").tempdir_in("/tmp").unwrap().keep();
        let password = dir.join("password");
        std::fs::write(&password, PASSWORD).unwrap();
        if is_root() {
            run(Command::new("chown").args(["-R", "postgres:postgres"]).arg(&dir));
        }
        let data = dir.join("data");
        let mut initdb = as_postgres(&programs.join("initdb"));
        initdb.args(["--no-sync", "--no-instructions", "--username=admin", "--auth=scram-sha-256", "--locale=C.UTF-8"]);
        run(initdb.arg(format!("--pwfile={}", password.display())).arg("--pgdata").arg(&data));
        // Free at this moment; the tests of one process share few servers.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = as_postgres(&programs.join("postgres"));
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "keeper"]).arg(&dir).arg(server.get_program()).args(server.get_args());
        keeper.arg("-D").arg(&data).args(["-h", "127.0.0.1", "-k"]).arg(&dir).args(["-p", &port.to_string()]);
        for setting in ["max_connections=200"].iter().chain(settings) {
            keeper.args(["-c", setting]);
        }
        let keeper = keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let server = Self { keeper: Mutex::new(keeper), dir, port, names: AtomicU32::new(0) };
        server.wait_until_it_answers();
        server
    }

    /// Directory with the Secret of a role that may do no more than docs/ledger.md asks for.
    pub fn secret(&self) -> PathBuf {
        let name = format!("bots{}", self.names.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'"));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.sql("postgres", &format!("GRANT CREATE ON DATABASE {name} TO {name}"));
        let dir = self.dir.join(&name);
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("url"), self.url(&name, &name)).unwrap();
        dir
    }

    pub fn url(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}:{PASSWORD}@127.0.0.1:{}/{database}?sslmode=disable\n", self.port)
    }

    /// What must be in no log, status or error.
    pub fn password() -> &'static str {
        PASSWORD
    }

    /// Runs SQL as the server's owner and returns the first column of its last row.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        self.ask(database, sql).unwrap()
    }

    /// Not by psql: while a process is being started it has every file of this one, and with it the lock of a ledger
    /// that is being closed.
    fn ask(&self, database: &str, sql: &str) -> Result<String, sqlx::Error> {
        let (url, sql) = (self.url("admin", database), sql.to_owned());
        let work = async move {
            let mut connection = PgConnection::connect(url.trim()).await?;
            let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut connection).await?;
            connection.close().await?;
            let last = rows.last().map(|row| row.try_get_raw(0)).transpose()?;
            Ok(last.map(|value| value.as_str().unwrap().to_owned()).unwrap_or_default())
        };
        // A thread of its own: the caller may be in a runtime.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        std::thread::spawn(move || runtime.block_on(work)).join().unwrap()
    }

    /// kill -9, and what the server had only in memory is lost.
    pub fn crash(&self) {
        self.order("KILL");
    }

    /// Starts it again after a crash or a stop.
    pub fn start_again(&self) {
        self.order("start");
        self.wait_until_it_answers();
    }

    fn order(&self, order: &str) {
        let mut keeper = self.keeper.lock().unwrap();
        writeln!(keeper.stdin.as_mut().unwrap(), "{order}").unwrap();
    }

    /// Whether it takes a connection now.
    pub fn answers(&self) -> bool {
        self.ask("postgres", "SELECT 1").is_ok()
    }

    fn wait_until_it_answers(&self) {
        let until = Instant::now() + PATIENCE;
        let log = || std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let mut refused = log().matches(REFUSED).count();
        while !self.answers() {
            assert!(Instant::now() < until, "PostgreSQL does not start: {}", log());
            let refusals = log().matches(REFUSED).count();
            if refusals > refused {
                refused = refusals;
                self.order("start");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut keeper = self.keeper.lock().unwrap();
        drop(keeper.stdin.take());
        keeper.wait().ok();
    }
}

/// Where Debian has the newest version.
fn programs() -> PathBuf {
    let found = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path());
    let version = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let newest = found.filter(|path| path.join("bin/postgres").exists()).max_by_key(version);
    newest.expect("no PostgreSQL: install the Debian package postgresql (tests/tools/build does)").join("bin")
}

/// The server refuses to run as root.
fn as_postgres(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
    command
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn run(command: &mut Command) -> String {
    // Programs that run as another user cannot be where only root is.
    let output = command.current_dir("/").env("LC_ALL", "C").output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
