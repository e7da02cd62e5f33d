import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { X509Certificate, randomBytes, randomUUID } from 'node:crypto';
import { chmod, mkdtemp, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { inspect } from 'node:util';
import type { Random } from '../model/ports.ts';
import { loadIdentity, openIdentity } from './identity.ts';

const random: Random = { uuid: randomUUID, bytes: (count) => randomBytes(count) };
let folder: string;
before(async () => { folder = await mkdtemp(join(tmpdir(), 'understudy-identity-')); });
after(async () => { await rm(folder, { recursive: true }); });

test('an identity is made once, is private to its owner, and is the same ever after', async () => {
  const place = join(folder, 'once', 'identity');
  const [first, rival] = await Promise.all([openIdentity(place, 'host-a', random), openIdentity(place, 'host-a', random)]);
  const later = await openIdentity(place, 'renamed', random);
  assert.equal(rival.fingerprint, first.fingerprint, 'two processes at once get the same one');
  assert.equal(later.fingerprint, first.fingerprint);
  assert.deepEqual(await readdir(place), ['host.pem'], 'no temporary file stays');
  assert.equal((await stat(join(place, 'host.pem'))).mode & 0o777, 0o600);
  assert.equal((await stat(place)).mode & 0o777, 0o700);
});

test('the certificate is P-256, for both roles, names its host and outlives the machine', async () => {
  const { certificate, fingerprint } = await openIdentity(join(folder, 'shape'), 'host-b.example.org', random);
  const read = new X509Certificate(certificate);
  assert.equal(read.fingerprint256, fingerprint);
  assert.equal(read.publicKey.asymmetricKeyDetails?.namedCurve, 'prime256v1');
  assert.deepEqual(read.keyUsage, ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2']);
  assert.equal(read.checkHost('host-b.example.org'), 'host-b.example.org');
  assert.ok(read.validToDate.getUTCFullYear() >= 2099);
  assert.equal(read.ca, false);
  assert.ok(read.verify(read.publicKey));
});

test('openssl agrees on the fingerprint', async () => {
  const place = join(folder, 'openssl');
  const { fingerprint } = await openIdentity(place, '192.0.2.7', random);
  const printed = await new Promise<string>((resolve, reject) => {
    const file = join(place, 'host.pem');
    execFile('openssl', ['x509', '-in', file, '-noout', '-fingerprint', '-sha256', '-ext', 'subjectAltName'],
      (error, stdout) => (error === null ? resolve(stdout) : reject(error)));
  });
  assert.match(printed, new RegExp(`=${fingerprint}`));
  assert.match(printed, /IP Address:192\.0\.2\.7/);
});

test('the private key shows in no log, JSON or inspection', async () => {
  const identity = await openIdentity(join(folder, 'secret'), 'host-c', random);
  const key = (await readFile(join(folder, 'secret', 'host.pem'), 'utf8')).split('PRIVATE KEY-----')[1]!.trim().slice(0, 40);
  assert.ok(key.length === 40 && identity.tlsOptions().key.includes(key), 'the test looks for what is there');
  for (const shown of [inspect(identity, { depth: 9, showHidden: true }), JSON.stringify({ identity }), String(identity)]) {
    assert.ok(!shown.includes(key));
    assert.doesNotMatch(shown, /PRIVATE/);
  }
});

test('a key that others may read is refused', async () => {
  const place = join(folder, 'exposed');
  await openIdentity(place, 'host-d', random);
  await chmod(join(place, 'host.pem'), 0o640);
  await assert.rejects(openIdentity(place, 'host-d', random),
    { code: 'IDENTITY_EXPOSED', message: /mode 0640/, remedy: /chmod 600/ });
});

test('a damaged identity is refused and not replaced', async () => {
  const place = join(folder, 'damaged');
  await openIdentity(place, 'host-e', random);
  const file = join(place, 'host.pem');
  const good = await readFile(file, 'utf8');
  const other = await openIdentity(join(folder, 'other'), 'host-e', random);
  const bad = [
    '', good.slice(0, 300), good.replace(/MII[^\n]*/, 'MIIB'),
    good.replace(/-----BEGIN CERT[^]*?END CERTIFICATE-----/, other.certificate),
  ];
  for (const text of bad) {
    await writeFile(file, text);
    await assert.rejects(openIdentity(place, 'host-e', random), { code: 'IDENTITY_INVALID' });
    assert.equal(await readFile(file, 'utf8'), text);
  }
});

test('a host name that fits no certificate is refused', async () => {
  for (const name of ['', 'two words', 'a'.repeat(254), 'evil\nname', '-x', 'ü']) {
    await assert.rejects(openIdentity(join(folder, 'named'), name, random), { code: 'HOST_NAME_INVALID' }, name);
  }
});

test('an own certificate is refused when its time has not come or is over, and when a file is missing', async () => {
  const place = join(folder, 'own');
  await openIdentity(place, 'host-f', random);
  const file = join(place, 'host.pem');
  const files = { certificate: file, privateKey: file, authority: file };
  const identity = await loadIdentity(files, Date.UTC(2030, 0, 1));
  assert.ok(identity.usesAuthority);
  await assert.rejects(loadIdentity(files, Date.UTC(2019, 0, 1)), { code: 'IDENTITY_INVALID', message: /now is 2019/ });
  await assert.rejects(loadIdentity(files, Date.UTC(2100, 0, 1)), { code: 'IDENTITY_INVALID', message: /now is 2100/ });
  await assert.rejects(loadIdentity({ ...files, authority: join(place, 'none') }, 0),
    { code: 'IDENTITY_INVALID', message: /ENOENT/ });
});
