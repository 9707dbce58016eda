//! What the bed changes on the machine, and how it restores it: one link, a few routes, iptables chains, kernel
//! settings, an empty folder.
//!
//! The CNI plugin `ptp` connects the pods: each has a link of its own to the host, which routes. So traffic between
//! pods passes the host's iptables even on one node, which the addresses of services need. With a bridge the answer of
//! a pod on the same node would take the short way, and its address would never be translated back.
//!
//! The kubelets and `kube-proxy` change kernel settings. Their earlier values are kept in `sysctl.before` and written
//! back at the end. The file is written before the first change and removed after the last one, so the changes of a bed
//! that was killed half-way are still undone.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::layout::{self, HOST, LINK, NODES, PODS, SERVICES};
use super::tools::{run_with_input, sh};
use super::unit::another_bed_runs;
use crate::error::{KitError, Result};

/// Our chain in iptables: packets from and to pods pass, whatever the machine's policy for forwarding is.
const CHAIN: &str = "HOLDFAST-KUBE";

/// Where a kubelet opens its socket for devices, whatever its own folder is. A node mounts one of its own folders
/// there.
pub(crate) const KUBELET_FOLDER: &str = "/var/lib/kubelet";

/// Settings that we, the kubelets or `kube-proxy` write.
const SETTINGS: [&str; 10] = [
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/route_localnet",
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// Makes the link with the addresses of host and nodes, and turns forwarding on in the kernel.
pub(crate) fn connect(state: &Path) -> Result<()> {
    remember_settings(state)?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").map_err(KitError::io("let the kernel forward packets"))?;
    sh(&["ip", "link", "add", LINK, "type", "bridge"])?;
    let mut addresses = vec![HOST];
    addresses.extend((1..=NODES).map(layout::node_address));
    for address in addresses {
        sh(&["ip", "address", "add", &format!("{address}/32"), "dev", LINK])?;
    }
    sh(&["ip", "link", "set", LINK, "up"])?;
    // Gives the host an address of its own for services, even on a machine without any other network.
    sh(&["ip", "route", "add", SERVICES, "dev", LINK, "src", &HOST.to_string()])?;
    sh(&["iptables", "-w", "-N", CHAIN])?;
    for direction in ["-s", "-d"] {
        sh(&["iptables", "-w", "-A", CHAIN, direction, PODS, "-j", "ACCEPT"])?;
    }
    for chain in ["FORWARD", "INPUT"] {
        sh(&["iptables", "-w", "-I", chain, "1", "-j", CHAIN])?;
    }
    Ok(())
}

/// Makes the mount point for each node: an empty folder that [`disconnect`] removes.
pub(crate) fn make_kubelet_folder() -> Result<()> {
    fs::create_dir_all(KUBELET_FOLDER).map_err(KitError::io(format!("make {KUBELET_FOLDER}")))
}

/// Removes all of it again, as far as it exists. The processes must have ended before.
pub(crate) fn disconnect(state: &Path) {
    // The link's routes end with it; without a bed there is no link.
    let _ = sh(&["ip", "link", "delete", LINK]);
    // If something is in the folder, it belongs to another program, and the folder stays. To remove it would also end
    // the mounts on it in the nodes of another bed.
    if !another_bed_runs() {
        let _ = fs::remove_dir(KUBELET_FOLDER);
    }
    for program in ["iptables", "ip6tables"] {
        for table in ["filter", "nat", "mangle"] {
            clear_table(program, table);
        }
    }
    restore_settings(state);
}

/// Removes from a table our chain and those of kubelet and `kube-proxy`, and the rules that lead to them.
fn clear_table(program: &str, table: &str) {
    let Ok(saved) = sh(&[&format!("{program}-save"), "-t", table]) else { return };
    if let Some(script) = removal(&saved, table) {
        let _ = run_with_input(
            std::process::Command::new(format!("{program}-restore")).args(["-w", "5", "--noflush"]),
            Some(&script),
        );
    }
}

/// The input of `iptables-restore` that removes our entries from a saved table; `None` if there are none.
fn removal(saved: &str, table: &str) -> Option<String> {
    let is_ours = |name: &str| name == CHAIN || name.starts_with("KUBE-");
    let chains: Vec<&str> = saved
        .lines()
        .filter_map(|line| line.strip_prefix(':')?.split_whitespace().next())
        .filter(|name| is_ours(name))
        .collect();
    if chains.is_empty() {
        return None;
    }
    let mut script = format!("*{table}\n");
    for line in saved.lines() {
        let Some(rule) = line.strip_prefix("-A ") else { continue };
        let Some((chain, rest)) = rule.split_once(' ') else { continue };
        let target = rest.split_whitespace().skip_while(|word| !matches!(*word, "-j" | "-g")).nth(1);
        if !is_ours(chain) && target.is_some_and(is_ours) {
            script.push_str("-D ");
            script.push_str(rule);
            script.push('\n');
        }
    }
    for action in ["-F", "-X"] {
        for chain in &chains {
            let _ = writeln!(script, "{action} {chain}");
        }
    }
    script.push_str("COMMIT\n");
    Some(script)
}

fn remember_settings(state: &Path) -> Result<()> {
    let file = state.join("sysctl.before");
    if file.exists() {
        return Ok(());
    }
    let text: String = SETTINGS
        .iter()
        .filter_map(|name| {
            Some(format!("{name} {}\n", fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?.trim()))
        })
        .collect();
    fs::write(&file, text).map_err(KitError::io(format!("write {}", file.display())))
}

fn restore_settings(state: &Path) {
    let file = state.join("sysctl.before");
    let Ok(text) = fs::read_to_string(&file) else { return };
    for (name, value) in text.lines().filter_map(|line| line.split_once(' ')) {
        let path = Path::new("/proc/sys").join(name);
        let now = fs::read_to_string(&path).unwrap_or_default();
        if now.trim() != value {
            let _ = fs::write(&path, value);
        }
    }
    let _ = fs::remove_file(file);
}

#[cfg(test)]
mod tests {
    use super::removal;

    #[test]
    fn only_what_belongs_to_the_bed_is_removed() {
        let saved = "*nat\n:PREROUTING ACCEPT [0:0]\n:DOCKER - [0:0]\n:KUBE-SERVICES - [0:0]\n:KUBE-SVC-1 - [0:0]\n\
                     -A PREROUTING -m comment --comment \"service portals\" -j KUBE-SERVICES\n\
                     -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n\
                     -A KUBE-SERVICES -d 10.96.0.1/32 -j KUBE-SVC-1\nCOMMIT\n";
        let expected = "*nat\n-D PREROUTING -m comment --comment \"service portals\" -j KUBE-SERVICES\n\
                        -F KUBE-SERVICES\n-F KUBE-SVC-1\n-X KUBE-SERVICES\n-X KUBE-SVC-1\nCOMMIT\n";
        assert_eq!(removal(saved, "nat").as_deref(), Some(expected));
        assert_eq!(removal("*nat\n:DOCKER - [0:0]\n-A PREROUTING -j DOCKER\nCOMMIT\n", "nat"), None);
    }
}
