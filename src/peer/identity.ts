import { X509Certificate, createPrivateKey } from 'node:crypto';
import { link, mkdir, open, readFile, stat, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { UnderstudyError, errnoOf, messageOf } from '../model/errors.ts';
import type { Random } from '../model/ports.ts';
import { fingerprintOf } from './fingerprint.ts';

const FILE_NAME = 'host.pem';

/** What this host shows to other hosts. The private key is out of reach of logs, JSON and inspection. */
export class HostIdentity {
  /** SHA-256 of the certificate, `AB:CD:…`. */
  readonly fingerprint: string;
  /** PEM; of several, the first is the host's own. */
  readonly certificate: string;
  readonly #privateKey: string;
  readonly #authority: string | undefined;

  /** Throws IDENTITY_INVALID when the texts are no PEM or the key does not belong to the certificate. */
  constructor(pem: { certificate: string; privateKey: string; authority?: string }, from: string) {
    const own = parsed(from, 'certificate', () => new X509Certificate(pem.certificate));
    const key = parsed(from, 'private key', () => createPrivateKey(pem.privateKey));
    if (!own.checkPrivateKey(key)) throw invalid(from, 'the private key does not belong to the certificate');
    if (pem.authority !== undefined) parsed(from, 'certificate of the authority', () => new X509Certificate(pem.authority!));
    this.fingerprint = fingerprintOf(own.raw);
    this.certificate = pem.certificate;
    this.#privateKey = pem.privateKey;
    this.#authority = pem.authority;
  }

  /** True when certificates issued by a configured authority are believed too. */
  get usesAuthority(): boolean {
    return this.#authority !== undefined;
  }

  /** For node:tls only. */
  tlsOptions(): { cert: string; key: string; ca?: string } {
    const own = { cert: this.certificate, key: this.#privateKey };
    return this.#authority === undefined ? own : { ...own, ca: this.#authority };
  }

  toJSON(): object {
    return { fingerprint: this.fingerprint };
  }
}

/**
 * The identity in `folder`, made on first use: one file with certificate and key, mode 0600, in a folder of mode 0700.
 * Of two processes that make it at once both get the same one. It uses node:fs because the Files port knows no modes.
 * Throws IDENTITY_EXPOSED when others may read the key, IDENTITY_INVALID when the file is damaged: a new identity would
 * break every pairing, so none is made.
 */
export async function openIdentity(folder: string, hostName: string, random: Random): Promise<HostIdentity> {
  const path = join(folder, FILE_NAME);
  const existing = await readOwn(path);
  if (existing !== null) return existing;
  await mkdir(folder, { recursive: true, mode: 0o700 });
  // Loaded only here: a tenth of a second of libraries that a host needs once in its life.
  const { makeSelfMadePem } = await import('./self-made-certificate.ts');
  await createOnce(path, await makeSelfMadePem(hostName, random), random);
  const made = await readOwn(path);
  if (made === null) throw invalid(path, 'the file vanished while it was made');
  return made;
}

/**
 * An identity that an administrator's certificate authority issued. Files are PEM; `authority` lists whom to believe.
 */
export async function loadIdentity(
  files: { certificate: string; privateKey: string; authority: string }, nowMs: number,
): Promise<HostIdentity> {
  await refuseExposed(files.privateKey);
  const [certificate, privateKey, authority] = await Promise.all([
    readPem(files.certificate), readPem(files.privateKey), readPem(files.authority),
  ]);
  const identity = new HostIdentity({ certificate, privateKey, authority }, files.certificate);
  const { validFromDate, validToDate } = new X509Certificate(certificate);
  if (nowMs < validFromDate.getTime() || nowMs > validToDate.getTime()) {
    throw invalid(files.certificate,
      `valid from ${validFromDate.toISOString()} to ${validToDate.toISOString()}, now is ${new Date(nowMs).toISOString()}`);
  }
  return identity;
}

/** The whole file under its name, durable, or nothing; an existing file stays. `link` is what refuses to replace. */
async function createOnce(path: string, text: string, random: Random): Promise<void> {
  const temporary = `${path}.${random.uuid()}`;
  try {
    const file = await open(temporary, 'wx', 0o600);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    try {
      await link(temporary, path);
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw error;
    }
  } finally {
    await unlink(temporary);
  }
  await syncFolder(dirname(path));
  await syncFolder(dirname(dirname(path)));
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

async function readOwn(path: string): Promise<HostIdentity | null> {
  try {
    await refuseExposed(path);
    const text = await readFile(path, 'utf8');
    const privateKey = /-----BEGIN PRIVATE KEY-----[^-]*-----END PRIVATE KEY-----/.exec(text)?.[0];
    const certificate = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/.exec(text)?.[0];
    if (privateKey === undefined || certificate === undefined) {
      throw invalid(path, 'it must hold a certificate and a private key');
    }
    return new HostIdentity({ certificate, privateKey }, path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return null;
    throw error;
  }
}

async function refuseExposed(path: string): Promise<void> {
  const mode = (await stat(path)).mode & 0o777;
  if ((mode & 0o077) === 0) return;
  throw new UnderstudyError('state', 'IDENTITY_EXPOSED',
    `the private key ${path} has mode 0${mode.toString(8)}, only its owner may have access (0600)`,
    `Run chmod 600 ${path}; if others could read it, remove it and pair again.`);
}

async function readPem(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw invalid(path, messageOf(error), error);
  }
}

function parsed<T>(from: string, what: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    // The parser's own message could repeat key material; only its kind is told.
    throw invalid(from, `its ${what} is not PEM that can be used`, error instanceof Error ? error.name : undefined);
  }
}

function invalid(path: string, reason: string, cause?: unknown): UnderstudyError {
  return new UnderstudyError('state', 'IDENTITY_INVALID', `the identity in ${path} cannot be used: ${reason}`,
    'Restore the file from a backup; or remove it, and authorise the new fingerprint on every paired host.', { cause });
}
