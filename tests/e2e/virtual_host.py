# SPDX-License-Identifier: Apache-2.0
"""A disk whose guest is a host itself: Debian's signed kernel, and an initramfs that runs vallum-agent."""

import gzip
import pathlib
import re
import shutil
import subprocess

import harness
from guest_disk import Disk, run

# Behind the ESP: where the guest keeps the agent's state over reboots, as an archive.
STATE_MIB = 100
SIZE_MIB = 120
QEMU = pathlib.Path("/usr/bin/qemu-system-x86_64")

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/host/bin
mkdir -p /proc /sys /dev /run /tmp /state /etc; chmod 755 /  # QEMU runs as a user of its own
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
for module in $(cat /modules.order); do insmod "$module" 2>/dev/null; done
mount -t efivarfs efivarfs /sys/firmware/efi/efivars
mount -t securityfs securityfs /sys/kernel/security
mkdir -p /dev/shm; mount -t tmpfs tmpfs /dev/shm
ip link set lo up; ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2
echo "root:x:0:0:root:/:/bin/sh" >/etc/passwd; echo "root:x:0:" >/etc/group
# The other disk is the seed, with some sectors.
for each in /sys/block/vd*; do [ "$(cat $each/size)" -lt 200000 ] || disk=/dev/$(basename $each); done
dd if=$disk bs=1M skip={state} 2>/dev/null | tar -C /state -x 2>/dev/null
echo "virtual-host: cmdline $(cat /proc/cmdline)"
echo "virtual-host: agent starts"
(while sleep 1; do
  [ -e /state/identity/identity.json ] || continue
  tar -C /state -c . >/tmp/state.tar 2>/dev/null || continue
  cmp -s /tmp/state.tar /tmp/saved.tar && {{ echo "virtual-host: all of $(ls /state/instances) is kept"; continue; }}
  dd if=/tmp/state.tar of=$disk bs=1M seek={state} conv=notrunc 2>/dev/null; sync
  cp /tmp/state.tar /tmp/saved.tar
done) &
while true; do
  /host/bin/vallum-agent --state-dir /state --run-dir /run/vallum \\
    --name {name} --join-token-file /host/join.token
  echo "virtual-host: agent ended: $?"
  sleep 2
done
"""


def libraries(program):
    """The shared libraries of a program, and the loader."""
    listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    return set(re.findall(r"(?:=> )?(/\S+) \(0x", listed))


def make_host_initramfs(folder, name, join_token):
    tree = pathlib.Path(folder) / "initramfs"
    for place in ("host/bin", "usr/bin", "lib64", "lib/x86_64-linux-gnu", "usr/share/seabios"):
        (tree / place).mkdir(parents=True)
    programs = {harness.BIN / name: tree / "host/bin" / name for name in ("vallum-agent", "vallum-vtpm", "vallum-inspect")}
    programs[QEMU] = tree / "usr/bin" / QEMU.name
    for program, target in programs.items():
        run("strip", "-o", target, program)
        for library in libraries(program):
            place = "lib64" if "ld-linux" in library else "lib/x86_64-linux-gnu"
            shutil.copy(library, tree / place)
    shutil.copy("/usr/share/seabios/bios-256k.bin", tree / "usr/share/seabios")
    modules = tree / "usr/lib/x86_64-linux-gnu/qemu"
    modules.mkdir(parents=True)
    for module in pathlib.Path("/usr/lib/x86_64-linux-gnu/qemu").glob("accel-tcg-x86_64.so"):
        shutil.copy(module, modules)
    shutil.copyfile(join_token, tree / "host/join.token")
    (tree / "host/join.token").chmod(0o600)
    (tree / "host-init").write_text(INIT.format(name=name, state=STATE_MIB))
    (tree / "host-init").chmod(0o755)
    files = "\0".join(sorted(str(p.relative_to(tree)) for p in tree.rglob("*")))
    archive = subprocess.run(
        ["cpio", "--quiet", "--null", "--create", "--format=newc", "--owner=0:0"], cwd=tree, input=files.encode(),
        check=True, capture_output=True,
    ).stdout
    image = pathlib.Path(folder) / "host.img"
    image.write_bytes(gzip.compress(archive, 6))
    return image


def host_disk(folder, name, join_token):
    """The disk of a virtual host that joins under this name."""
    disk = Disk.__new__(Disk)
    disk.path = pathlib.Path(folder) / f"{name}.raw"
    parts = {file: Disk(folder, "parts").take(file) for file in ("/vmlinuz", "/initrd.img", "/EFI/debian/grub.cfg",
             "/EFI/BOOT/BOOTX64.EFI", "/EFI/BOOT/grubx64.efi", "/EFI/BOOT/mmx64.efi")}
    with open(disk.path, "wb") as file:
        file.truncate(SIZE_MIB << 20)
    end = (STATE_MIB << 11) - 1
    run("sgdisk", "--clear", f"--new=1:2048:{end}", "--typecode=1:EF00", disk.path)
    run("mformat", "-i", f"{disk.path}{harness.ESP}", "-F", "-c", "1", "-T", str(end + 1 - 2048), "-h", "255", "-s", "63", "::")
    run("mmd", "-i", f"{disk.path}{harness.ESP}", "::/EFI", "::/EFI/BOOT", "::/EFI/debian")
    for file, local in parts.items():
        if not file.endswith("grub.cfg"):
            disk.put(local, file)
    disk.put(make_host_initramfs(folder, name, join_token), "/host.img")
    text = parts["/EFI/debian/grub.cfg"].read_text()
    text = re.sub(r"^( *linux .*)$", r"\1 rdinit=/host-init", text, flags=re.M)
    text = re.sub(r"^( *initrd .*)$", r"\1 /host.img", text, flags=re.M)
    disk.put_text(text, "/EFI/debian/grub.cfg")
    return disk.path
