/** Hosts that believe a certificate authority instead of single fingerprints. */
import 'reflect-metadata';
import assert from 'node:assert/strict';
import { webcrypto } from 'node:crypto';
import { test } from 'node:test';
import * as x509 from '@peculiar/x509';
import { z } from 'zod';
import { HostIdentity } from '../../src/peer/identity.ts';
import type { PeerMessage } from '../../src/peer/message.ts';
import { identityOf, startRig } from './rig.ts';

const ask: PeerMessage<{ n: number }, { n: number }> = {
  name: 'ask', params: z.object({ n: z.int() }), result: z.object({ n: z.int() }), payloadBytesMax: 0, replyBytesMax: 0,
};
const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
x509.cryptoProvider.set(webcrypto);

type Authority = { certificate: x509.X509Certificate; keys: webcrypto.CryptoKeyPair };

function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
}

async function makeAuthority(name: string): Promise<Authority> {
  const keys = await newKeys();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: '01', name: `CN=${name}`, keys, signingAlgorithm: ALGORITHM, notAfter: new Date('2099-01-01'),
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true), new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
    ],
  });
  return { certificate, keys };
}

async function issue(authority: Authority, address: string, notAfter = '2099-01-01'): Promise<HostIdentity> {
  const keys = await newKeys();
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: '02', subject: `CN=${address}`, issuer: authority.certificate.subject,
    publicKey: keys.publicKey, signingKey: authority.keys.privateKey, signingAlgorithm: ALGORITHM,
    notBefore: new Date('2020-01-01'), notAfter: new Date(notAfter),
    extensions: [
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]),
      new x509.SubjectAlternativeNameExtension([{ type: 'ip', value: address }]),
    ],
  });
  const privateKey = x509.PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey), 'PRIVATE KEY');
  return new HostIdentity({
    certificate: certificate.toString('pem'), privateKey, authority: authority.certificate.toString('pem'),
  }, 'test');
}

test('hosts of one authority talk by an entry for any, without pins', async () => {
  const authority = await makeAuthority('authority');
  await using rig = await startRig({}, { replica: await issue(authority, '127.0.0.1') });
  rig.entries.splice(0, 1, { fingerprint: 'any', name: null, storageLocation: '/replicas', trustGroup: 'DEFAULT' });
  rig.dispatcher.handle(ask, async (_caller, params) => ({ result: params }));
  const trusted = rig.link({ identity: await issue(authority, '192.0.2.9'), fingerprint: 'any' });
  assert.deepEqual((await trusted.call(ask, { n: 1 })).result, { n: 1 });

  const strangers = {
    'self-made': await identityOf('stranger'),
    'of another authority with the same name': await issue(await makeAuthority('authority'), '192.0.2.9'),
    'out of date': await issue(authority, '192.0.2.9', '2021-01-01'),
  };
  for (const [what, identity] of Object.entries(strangers)) {
    const link = rig.link({ identity, fingerprint: rig.replica.fingerprint });
    await assert.rejects(link.call(ask, { n: 1 }), { code: 'PEER_NOT_AUTHORISED' }, what);
  }
});

test('an entry for any covers nobody on a host without an authority', async () => {
  const authority = await makeAuthority('authority');
  await using rig = await startRig();
  rig.entries.splice(0, 1, { fingerprint: 'any', name: null, storageLocation: '/replicas', trustGroup: 'DEFAULT' });
  for (const identity of [rig.primary, await issue(authority, '127.0.0.1')]) {
    await assert.rejects(rig.link({ identity }).call(ask, { n: 1 }), { code: 'PEER_NOT_AUTHORISED' });
  }
});

test('a server that the authority does not vouch for, or for another host, is refused before a byte is sent', async () => {
  const authority = await makeAuthority('authority');
  const client = await issue(authority, '192.0.2.9');
  const other = await makeAuthority('authority');
  const servers = [await identityOf('replica'), await issue(other, '127.0.0.1'), await issue(authority, '192.0.2.1')];
  for (const replica of servers) {
    await using rig = await startRig({}, { replica });
    rig.dispatcher.handle(ask, async () => assert.fail('it was asked'));
    rig.entries.push({ fingerprint: client.fingerprint, name: null, storageLocation: '/replicas', trustGroup: 'DEFAULT' });
    const link = rig.link({ identity: client, fingerprint: 'any' });
    await assert.rejects(link.call(ask, { n: 1 }),
      { kind: 'peer', code: 'PEER_CERTIFICATE_UNTRUSTED', message: new RegExp(replica.fingerprint) });
  }
});
