//! The bank beside the ledger: another application on the same brokers, whose records pass an internal topic and whose
//! money must stay the same in sum. Every fault of brokers and network hits it as well, and one of its workers is killed
//! in the middle of every other fault.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use processor_simulator::SplitMix64;

use super::cluster::Cluster;
use super::proof::{await_processed, judged};
use super::segment::{Member, STUCK, Setting, ensure_alive};
use super::wrong;
use crate::lab::interrupt::Interrupt;
use crate::oracle::{self, BankBooks, PartitionLog};
use crate::scene::{Load, PARTITIONS, Scene, Subject};

const CREW: [&str; 2] = ["one", "two"];
/// Transfers a second.
const RATE: u64 = 150;
/// How often workers may end by themselves, in a segment.
const RESTARTS_MAX: u64 = 60;
const TOPICS: [&str; 3] = ["out", "refused", "unreadable"];

/// The bank of one segment.
pub(super) struct Bank {
    pub(super) scene: Scene,
    pub(super) crew: Vec<Member>,
    load: Option<Load>,
    /// How often one of its workers was killed.
    pub(super) kills: u64,
    restarts: u64,
}

impl std::fmt::Debug for Bank {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bank").field("scene", &self.scene).finish_non_exhaustive()
    }
}

impl Bank {
    /// Makes topics and starts everything.
    pub(super) fn open(name: &str, directory: &Path, cluster: &Cluster, setting: &Setting<'_>) -> Result<Self> {
        let dir = directory.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let (brokers, proxied) = (cluster.kafka.bootstrap_servers(), cluster.proxied());
        let scene = Scene::placed(Subject::BANK_LEDGER, name, dir, (&brokers, &proxied), PARTITIONS);
        let topics: Vec<String> = scene.subject.topics.iter().map(|(_, topic)| scene.topic(topic)).collect();
        cluster.await_topics(&topics, setting.interrupt)?;
        let mut crew: Vec<Member> = CREW.iter().map(|name| Member::new(&scene, name, None, None)).collect();
        crew.iter_mut().for_each(Member::start);
        let load = Some(scene.load(RATE));
        Ok(Self { scene, crew, load, kills: 0, restarts: 0 })
    }

    /// Kills one of its workers, which comes back at once.
    pub(super) fn strike(&mut self, random: &mut SplitMix64) -> Result<()> {
        self.ensure_all_run()?;
        let member = &mut self.crew[random.below(CREW.len() as u64) as usize];
        member.kill()?;
        member.start();
        self.kills += 1;
        Ok(())
    }

    /// Whoever has ended by itself is started again, as a service manager would: its workers are started in the middle of
    /// every fault, also where no broker answers, and a start that cannot ask the brokers gives up.
    pub(super) fn ensure_all_run(&mut self) -> Result<()> {
        for member in &mut self.crew {
            if let Err(error) = ensure_alive(member) {
                self.restarts += 1;
                if self.restarts > RESTARTS_MAX {
                    return Err(error.context("a worker of the bank does not stay up"));
                }
                member.start();
            }
        }
        Ok(())
    }

    /// The topics that it has made and was given.
    pub(super) fn topics(&self) -> Vec<String> {
        [self.scene.input()].into_iter().chain(self.scene.written()).collect()
    }

    /// Ends it and draws up its books again; how many transfers that were.
    pub(super) fn prove(&mut self, interrupt: &Interrupt) -> Result<u64> {
        let load = self.load.take().expect("a bank is proved once");
        load.finish(&mut self.scene);
        judged("the input of the bank", || self.scene.count_input())?;
        self.ensure_all_run()?;
        let crew = &mut self.crew;
        await_processed(&mut self.scene, interrupt, || crew.iter_mut().try_for_each(ensure_alive))?;
        let transfers = self.scene.kafka.read_committed(&self.scene.input())?;
        let settled = interrupt.wait_until(STUCK, || {
            self.crew.iter_mut().try_for_each(ensure_alive)?;
            let [balances, refused, unreadable] = &self.books(crate::client::Observer::read_committed_so_far)?;
            Ok(oracle::is_settled(&BankBooks { transfers: &transfers, balances, refused, unreadable }))
        })?;
        if !settled {
            return Err(wrong(format!("{STUCK:?} after the last transfer of the bank not every credit has arrived")));
        }
        self.crew.iter_mut().try_for_each(Member::stop)?;
        let [balances, refused, unreadable] = &self.books(crate::client::Observer::read_committed)?;
        judged("the bank", || {
            let books = BankBooks { transfers: &transfers, balances, refused, unreadable };
            let (verdict, state) = oracle::check_bank(&books);
            verdict.assert_ok();
            assert_eq!(verdict.inputs, self.scene.produced, "{verdict}");
            self.scene.verify_store("balances", &state, &CREW);
        })?;
        Ok(self.scene.produced)
    }

    fn books(
        &self,
        read: fn(&crate::client::Observer, &str) -> Result<Vec<PartitionLog>>,
    ) -> Result<[Vec<PartitionLog>; 3]> {
        let [balances, refused, unreadable] = TOPICS.map(|topic| read(&self.scene.kafka, &self.scene.topic(topic)));
        Ok([balances?, refused?, unreadable?])
    }
}
