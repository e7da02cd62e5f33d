/** A certificate for tests of the console, as an administrator would bring one. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export const NAMES = 'DNS:berlin.example,IP:10.9.8.7,IP:127.0.0.1';

export function selfMadeCertificate(folder = mkdtempSync(join(tmpdir(), 'understudy-certificate-'))) {
  const [certPath, keyPath] = [join(folder, 'cert.pem'), join(folder, 'key.pem')];
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/CN=berlin',
    '-addext', `subjectAltName=${NAMES}`, '-keyout', keyPath, '-out', certPath], { stdio: 'ignore' });
  const [cert, key] = [readFileSync(certPath, 'utf8'), readFileSync(keyPath, 'utf8')];
  return { cert, key, certPath, keyPath, remove: () => rmSync(folder, { recursive: true, force: true }) };
}
