//! `tidegate-ledger`: load, read, judge and bench on the command line.

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use std::fs::File;
use std::io::{BufReader, Read, Write, stderr, stdin, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tidegate_ledger::bench::Plan;
use tidegate_ledger::judge::Rules;
use tidegate_ledger::kafka::KafkaOptions;
use tidegate_ledger::login::LoginArguments;
use tidegate_ledger::read::Offsets;
use tidegate_ledger::report::Row;
use tidegate_ledger::{Judge, Load, LoadOptions, PayloadSize, Report, RunId, bare, bench, read};
use tracing_subscriber::filter::LevelFilter;

/// What was acknowledged against what Kafka holds.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Publishes numbered messages over MQTT and HTTP and logs every acknowledgement (outside the cluster)
    Load(LoadArguments),
    /// Prints the next offset of each partition, for `read --from` (in a pod)
    Offsets {
        #[command(flatten)]
        kafka: KafkaOptions,
        /// The topic's name in Kafka
        #[arg(long)]
        topic: String,
    },
    /// Prints the broker that leads each partition: PARTITION:BROKER,… (in a pod)
    Leaders {
        #[command(flatten)]
        kafka: KafkaOptions,
        /// The topic's name in Kafka
        #[arg(long)]
        topic: String,
    },
    /// Does nothing until it is ended, so that the other commands can be executed in its pod
    Idle,
    /// Prints what Kafka holds of a run (in a pod)
    Read {
        #[command(flatten)]
        kafka: KafkaOptions,
        /// The topic's name in Kafka
        #[arg(long)]
        topic: String,
        /// The run, as `load` printed it
        #[arg(long)]
        run: RunId,
        /// Where to start, as `offsets` printed it before the load; without it: the first record
        #[arg(long)]
        from: Option<Offsets>,
        /// The load's `--address`: each record's key is checked too
        #[arg(long)]
        address: Option<String>,
    },
    /// Judges a load's log against what `read` printed; fails if anything acknowledged is not as it was promised
    Judge {
        /// The load's log
        #[arg(long)]
        log: PathBuf,
        /// What `read` printed; `-` for standard input
        #[arg(long)]
        stored: PathBuf,
        /// Adds the run's phases, and the run second by second as data for a plot
        #[arg(long)]
        per_second: bool,
        #[command(flatten)]
        report: ReportArguments,
    },
    /// Measures latency at several rates
    #[command(subcommand)]
    Bench(Bench),
    /// Adds rows (one JSON object a line, as `bench bare` prints them) to a report
    Report {
        /// The rows; `-` for standard input
        #[arg(long)]
        rows: PathBuf,
        #[command(flatten)]
        report: ReportArguments,
    },
}

#[derive(Subcommand)]
enum Bench {
    /// From an MQTT publish to its acknowledgement and to its delivery (outside the cluster)
    Latency {
        /// `host:port` of the MQTT gateway
        #[arg(long)]
        broker: String,
        #[command(flatten)]
        login: LoginArguments,
        #[command(flatten)]
        plan: Plan,
        #[command(flatten)]
        report: ReportArguments,
    },
    /// The same messages with librdkafka straight into Kafka (in a pod)
    Bare {
        #[command(flatten)]
        kafka: KafkaOptions,
        /// The topic's name in Kafka
        #[arg(long)]
        topic: String,
        #[command(flatten)]
        plan: Plan,
    },
}

#[derive(Args)]
struct LoadArguments {
    /// `host:port` of the MQTT gateway
    #[arg(long)]
    broker: String,
    #[command(flatten)]
    login: LoginArguments,
    /// The log to write
    #[arg(long)]
    log: PathBuf,
    /// Names the run; made from the clock if it is not given
    #[arg(long)]
    run: Option<RunId>,
    /// Publishers over MQTT, each with a connection and an address of its own
    #[arg(long, default_value_t = 5)]
    publishers: u16,
    /// Messages per second of all MQTT publishers together
    #[arg(long, default_value_t = 50.0)]
    rate: f64,
    /// `host:port` of the HTTP gateway, for writers, readers and probes over HTTP
    #[arg(long)]
    http: Option<String>,
    /// Publishers over HTTP, each with a connection and an address of its own
    #[arg(long, default_value_t = 0, requires = "http")]
    writers: u16,
    /// Messages per second of all HTTP publishers together
    #[arg(long, default_value_t = 50.0)]
    http_rate: f64,
    /// MQTT clients that subscribe to everything that is published
    #[arg(long, default_value_t = 0)]
    subscribers: u16,
    /// HTTP clients that read the newest value of each address
    #[arg(long, default_value_t = 0, requires = "http")]
    readers: u16,
    /// Clients that connect anew every 100 ms, over MQTT and HTTP
    #[arg(long)]
    probe: bool,
    /// Bytes of each payload: BYTES or MIN..MAX
    #[arg(long, default_value = "100")]
    payload: PayloadSize,
    /// Address of each publisher, with `{publisher}` and `{run}`
    #[arg(long)]
    address: Option<String>,
    /// Unacknowledged messages per publisher
    #[arg(long, default_value_t = 16)]
    in_flight: u16,
    /// How long to publish, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How long to wait for missing answers at the end, in seconds
    #[arg(long, default_value_t = 30)]
    drain_seconds: u64,
}

#[derive(Args)]
struct ReportArguments {
    /// Adds the rows to `<folder>/<name>.json`
    #[arg(long, requires = "name")]
    reports: Option<PathBuf>,
    /// The report's name
    #[arg(long)]
    name: Option<String>,
    /// The row's case
    #[arg(long, default_value = "load")]
    case: String,
}

impl ReportArguments {
    fn add(&self, rows: Vec<Row>) -> anyhow::Result<()> {
        let (Some(folder), Some(name)) = (&self.reports, &self.name) else { return Ok(()) };
        let mut report = Report::start(name);
        let path = folder.join(format!("{name}.json"));
        if path.exists() {
            report = Report::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
        }
        for row in rows {
            report.push(row);
        }
        report.write(folder).with_context(|| format!("failed to write {}", path.display()))?;
        Ok(())
    }
}

fn main() -> ExitCode {
    // librdkafka's own words, beside the output that others read.
    tracing_subscriber::fmt().with_writer(stderr).with_max_level(LevelFilter::WARN).init();
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when standard error is gone too.
            let _ = writeln!(stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Load(arguments) => load(arguments),
        Command::Offsets { kafka, topic } => {
            writeln!(stdout(), "{}", read::ends(&kafka, &topic)?)?;
            Ok(())
        }
        Command::Leaders { kafka, topic } => {
            let leaders = read::leaders(&kafka, &topic)?;
            let pairs: Vec<_> =
                leaders.iter().map(|(partition, broker)| format!("{partition}:{broker}")).collect();
            writeln!(stdout(), "{}", pairs.join(","))?;
            Ok(())
        }
        Command::Idle => {
            // a signal ends it: there is nothing to put away
            loop {
                std::thread::park();
            }
        }
        Command::Read { kafka, topic, run, from, address } => {
            read::stored(&kafka, &topic, run, from.as_ref(), address.as_deref(), stdout().lock())?;
            Ok(())
        }
        Command::Judge { log, stored, per_second, report } => judge(&log, &stored, per_second, &report),
        Command::Bench(Bench::Latency { broker, login, plan, report }) => {
            let rows = bench::latency(&broker, login.login()?.as_ref(), &plan)?;
            print(&rows)?;
            report.add(rows)
        }
        Command::Bench(Bench::Bare { kafka, topic, plan }) => print(&bare::latency(&kafka, &topic, &plan)?),
        Command::Report { rows, report } => {
            let mut text = String::new();
            open(&rows)?.read_to_string(&mut text)?;
            let rows: Result<Vec<Row>, _> = text.lines().map(serde_json::from_str).collect();
            report.add(rows.context("failed to read the rows")?)
        }
    }
}

fn load(arguments: LoadArguments) -> anyhow::Result<()> {
    let mut options = LoadOptions::new(&arguments.broker, arguments.log);
    options.login = arguments.login.login()?;
    options.run = arguments.run.unwrap_or(options.run);
    options.address = arguments.address.unwrap_or(options.address);
    options.publishers = arguments.publishers;
    options.rate = arguments.rate;
    options.payload = arguments.payload;
    options.in_flight = arguments.in_flight;
    options.http = arguments.http.unwrap_or_default();
    options.writers = arguments.writers;
    options.http_rate = arguments.http_rate;
    options.subscribers = arguments.subscribers;
    options.readers = arguments.readers;
    options.probe = arguments.probe;
    writeln!(stdout(), "run {}", options.run)?;
    let load = Load::start(options)?;
    let seconds = Duration::from_secs(arguments.seconds);
    // Waits for a log that cannot be written; otherwise the time just passes.
    if load.wait("the end", seconds, |progress| progress.failed).is_ok() {
        bail!("failed to write the log");
    }
    let progress = load.stop(Duration::from_secs(arguments.drain_seconds))?;
    writeln!(
        stdout(),
        "offered {} acknowledged {} refused {} unanswered {} connections lost {}",
        progress.offered,
        progress.acknowledged,
        progress.refused,
        progress.unanswered(),
        progress.disconnected
    )?;
    Ok(())
}

fn judge(log: &Path, stored: &Path, per_second: bool, report: &ReportArguments) -> anyhow::Result<()> {
    let text = BufReader::new(File::open(log).with_context(|| format!("failed to open {}", log.display()))?);
    let mut judge = Judge::read_log(Rules::default(), text)?;
    judge.read_stored(BufReader::new(open(stored)?))?;
    let verdict = judge.verdict();
    let row = verdict.row(&report.case, per_second);
    writeln!(stdout(), "{}", serde_json::to_string_pretty(&row)?)?;
    report.add(vec![row])?;
    if !verdict.is_clean() {
        bail!("the promise did not hold: {}", verdict.faults().join(", "));
    }
    Ok(())
}

fn print(rows: &[Row]) -> anyhow::Result<()> {
    for row in rows {
        writeln!(stdout(), "{}", serde_json::to_string(row)?)?;
    }
    Ok(())
}

fn open(path: &Path) -> anyhow::Result<Box<dyn Read>> {
    if path == Path::new("-") {
        return Ok(Box::new(stdin()));
    }
    Ok(Box::new(File::open(path).with_context(|| format!("failed to open {}", path.display()))?))
}
