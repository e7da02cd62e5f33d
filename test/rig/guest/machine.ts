/** One QEMU machine: a job from inside/ over some disks, its serial line read as it comes. Plain emulation, no KVM. */
import { qemuName } from '../disk-formats.ts';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { kill9 } from '../program.ts';
import { prepareGuest } from './prepare.ts';
import { LANES, SLOTS } from './records.ts';

/** How long a guest's I/O waits for an NBD server that went away, before the guest sees an error. */
const RECONNECT_SEC = 60;
/** For a machine that hangs; a slow one may take its time (two seconds to boot alone, a minute where everything runs at once). */
const LIMIT_MS = 180_000;
const MEMORY_MIB = 192;
/**
 * loglevel 4 lets the kernel's error messages through, and little else. no_timer_check: the boot's test of the timer panics where
 * the emulator gets no processor for some ticks. From cryptomgr on: what a boot need not do here; a third of its time.
 */
const KERNEL_PARAMETERS = 'console=ttyS0 quiet loglevel=4 panic=-1 nokaslr mitigations=off tsc=reliable no_timer_check ' +
  'random.trust_cpu=on rdinit=/init cryptomgr.notests=1 lsm= audit=0 rcupdate.rcu_expedited=1 nosmp numa=off init_on_alloc=0 ipv6.disable=1';
const SEED_KIB = 512;
/** Of the one network card of a guest with an agent. */
export const GUEST_MAC = '52:54:00:12:34:56';

export interface Disk {
  /** A path of a raw, VHD or VHDX file, by the end of its name; or an NBD URI over a Unix socket. */
  at: string;
  /** What the guest writes is thrown away at the end; the file is only read, also while somebody else holds it open. */
  snapshot?: boolean;
}

export class Machine {
  /** All that came over the serial line, and what QEMU itself said. */
  said = '';
  readonly #child: ChildProcess;
  #waiting: (() => void)[] = [];
  #ended = false;

  constructor(child: ChildProcess) {
    this.#child = child;
    const hear = (data: Buffer): void => {
      this.said += data.toString('latin1').replaceAll('\r', '');
      this.#wake();
    };
    child.stdout!.on('data', hear);
    child.stderr!.on('data', hear);
    child.stdin!.on('error', () => undefined);
    child.once('close', () => {
      this.#ended = true;
      this.#wake();
    });
  }

  /** Boots the job with these disks as /dev/vda, vdb … in this order. `agent`: the socket at which its guest agent is to answer. */
  static async boot(job: 'writer' | 'verify', disks: Disk[], guestDisks = disks.length, agent: string | null = null): Promise<Machine> {
    const { kernel, initramfs } = await prepareGuest({ agent: agent !== null });
    const parameters = { JOB: job, DISKS: guestDisks, LANES, SLOTS, SEED_KIB };
    const args = ['-M', 'pc', '-accel', 'tcg', '-cpu', 'max', '-m', String(MEMORY_MIB), '-smp', '1', '-nodefaults', '-no-user-config',
      '-display', 'none', '-no-reboot', '-serial', 'stdio', '-kernel', kernel, '-initrd', initramfs,
      '-append', [KERNEL_PARAMETERS, ...Object.entries(parameters).map(([name, value]) => `${name}=${value}`)].join(' '),
      ...(agent === null ? [] : ['-device', 'virtio-serial-pci', '-chardev', `socket,path=${quoted(agent)},server=on,wait=off,id=qga`,
        '-device', 'virtserialport,chardev=qga,name=org.qemu.guest_agent.0',
        // A card with its cable in nothing: what an address may be given to.
        '-netdev', 'hubport,id=net0,hubid=0', '-device', `virtio-net-pci,netdev=net0,mac=${GUEST_MAC},romfile=`]),
      ...disks.flatMap((disk, index) => ['-drive', drive(disk, index), '-device', `virtio-blk-pci,drive=d${index}`])];
    // The machine dies with the test, however the test ends.
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', 'qemu-system-x86_64', ...args], { stdio: ['pipe', 'pipe', 'pipe'] });
    await once(child, 'spawn');
    return new Machine(child);
  }

  /** Types a line on the guest's serial console. */
  type(text: string): void {
    this.#child.stdin!.write(`${text}\n`);
  }

  /**
   * Waits for the first answer other than null; rejects, with the end of what was said, when the machine ends or time is
   * over first.
   */
  async until<T>(answer: () => T | null, what: string, timeoutMs = LIMIT_MS): Promise<T> {
    const end = performance.now() + timeoutMs;
    for (;;) {
      const found = answer();
      if (found !== null) return found;
      const left = end - performance.now();
      if (this.#ended || left <= 0) {
        throw new Error(`guest: no ${what}; it ${this.#ended ? 'ended' : `was given ${timeoutMs / 1000} s`}:\n${this.said.slice(-3000)}`);
      }
      await new Promise<void>((resolve) => {
        const limit = setTimeout(resolve, left);
        this.#waiting.push(() => {
          clearTimeout(limit);
          resolve();
        });
      });
    }
  }

  /** Waits for the orderly power off; the exit code of the job. */
  async exitCode(timeoutMs = LIMIT_MS): Promise<number> {
    await this.until(() => (this.#ended ? true : null), 'power off', timeoutMs).finally(() => this.kill());
    const found = /^GUEST-EXIT (\d+)$/m.exec(this.said);
    if (found === null) throw new Error(`guest: ended without a result:\n${this.said.slice(-3000)}`);
    return Number(found[1]);
  }

  /** What the guest complained about: its scripts' errors and its kernel's. */
  errors(): string[] {
    return this.said.split('\n').filter((line) => /^GUEST-ERROR|I\/O error|EXT4-fs error|JBD2: .*error|Kernel panic/i.test(line));
  }

  /** The power cut. */
  async kill(): Promise<void> {
    await kill9(this.#child);
  }

  #wake(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }
}

function drive({ at, snapshot = false }: Disk, index: number): string {
  const end = `if=none,id=d${index}${snapshot ? ',snapshot=on' : ''}`;
  const uri = /^nbd\+unix:\/\/\/([^?]*)\?socket=(.+)$/.exec(at);
  if (uri === null) return `driver=${qemuName(at)},file.driver=file,file.filename=${quoted(at)},file.locking=${snapshot ? 'off' : 'auto'},${end}`;
  return `driver=raw,file.driver=nbd,file.server.type=unix,file.server.path=${quoted(uri[2]!)},file.export=${
    quoted(decodeURIComponent(uri[1]!))},file.reconnect-delay=${RECONNECT_SEC},${end}`;
}

/** QEMU's option lists double a comma that is meant. */
const quoted = (value: string): string => value.replaceAll(',', ',,');
