/**
 * A network of the kernel's: a relay in public, and peers that are there, too, or behind routers with NAT. Each machine is a network
 * namespace of Linux, which takes root, and the commands `ip` and `nft`.
 */
import { execFileSync } from 'node:child_process'

/**
 * How a peer is connected:
 * - `public`: it has a public address itself
 * - `dropping`: by a router that keeps the port of what leaves, and drops what comes from where nothing has been sent to (RFC 4787, section
 * 5, "Address and Port-Dependent Filtering")
 * - `rejecting`: the same, but says so (ICMP port unreachable)
 * - `symmetric`: by a router that gives what leaves another port for each destination (RFC 4787, section 4.1, "Address and Port-Dependent
 * Mapping")
 */
export type Access = 'public' | 'dropping' | 'rejecting' | 'symmetric'

export interface Machine {
  namespace: string

  /**
   * Where it is seen from
   */
  publicAddress: string
}

/** Addresses that libp2p takes for public: it tells nobody of others. Nothing leaves the namespaces. */
const PUBLIC = '5.0.0'

export class Network {
  readonly relay: Machine
  readonly #prefix = `psec-${process.pid}`
  readonly #namespaces: string[] = []
  #hosts = 1

  /**
   * Throws if this machine does not let anybody make namespaces
   */
  constructor () {
    const namespace = this.#addNamespace('relay')
    // the internet
    ip('-n', namespace, 'link', 'add', 'internet', 'type', 'bridge')
    ip('-n', namespace, 'link', 'set', 'internet', 'up')
    ip('-n', namespace, 'addr', 'add', `${PUBLIC}.1/24`, 'dev', 'internet')
    this.relay = { namespace, publicAddress: `${PUBLIC}.1` }
  }

  addPeer (access: Access): Machine {
    const host = ++this.#hosts
    const publicAddress = `${PUBLIC}.${host}`

    if (access === 'public') {
      const namespace = this.#addNamespace(`peer${host}`)
      this.#plugIn(namespace, publicAddress, host)

      return { namespace, publicAddress }
    }

    const router = this.#addNamespace(`router${host}`)
    const namespace = this.#addNamespace(`peer${host}`)
    this.#plugIn(router, publicAddress, host)
    ip('link', 'add', 'lan', 'netns', router, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', namespace)
    ip('-n', router, 'addr', 'add', `10.0.${host}.1/24`, 'dev', 'lan')
    ip('-n', router, 'link', 'set', 'lan', 'up')
    ip('-n', namespace, 'addr', 'add', `10.0.${host}.2/24`, 'dev', 'eth0')
    ip('-n', namespace, 'link', 'set', 'eth0', 'up')
    ip('-n', namespace, 'route', 'add', 'default', 'via', `10.0.${host}.1`)
    run('ip', ['netns', 'exec', router, 'sysctl', '-q', '-w', 'net.ipv4.ip_forward=1'])
    run('ip', ['netns', 'exec', router, 'nft', '-f', '-'], rules(access))

    return { namespace, publicAddress }
  }

  /**
   * Remove all of it; processes in it lose their network
   */
  remove (): void {
    for (const namespace of this.#namespaces.splice(0)) {
      ip('netns', 'delete', namespace)
    }
  }

  #addNamespace (name: string): string {
    const namespace = `${this.#prefix}-${name}`
    ip('netns', 'add', namespace)
    this.#namespaces.push(namespace)
    ip('-n', namespace, 'link', 'set', 'lo', 'up')

    return namespace
  }

  /**
   * Connect a machine to the internet
   */
  #plugIn (namespace: string, address: string, host: number): void {
    ip('link', 'add', 'wan', 'netns', namespace, 'type', 'veth', 'peer', 'name', `port${host}`, 'netns', this.relay.namespace)
    ip('-n', this.relay.namespace, 'link', 'set', `port${host}`, 'master', 'internet', 'up')
    ip('-n', namespace, 'addr', 'add', `${address}/24`, 'dev', 'wan')
    ip('-n', namespace, 'link', 'set', 'wan', 'up')
  }
}

function rules (access: Exclude<Access, 'public'>): string {
  return `
    table inet filter {
      chain input {
        type filter hook input priority 0; policy drop;
        ct state established,related accept
        iifname lan accept
        ${access === 'rejecting' ? 'reject with icmpx port-unreachable' : 'drop'}
      }
      chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        iifname lan accept
      }
    }
    table ip nat {
      chain postrouting {
        type nat hook postrouting priority 100;
        oifname wan masquerade ${access === 'symmetric' ? 'fully-random' : ''}
      }
    }
  `
}

function ip (...args: string[]): void {
  run('ip', args)
}

function run (command: string, args: string[], input?: string): void {
  try {
    execFileSync(command, args, { input, stdio: ['pipe', 'ignore', 'pipe'] })
  } catch (err: any) {
    throw new Error(`"${command} ${args.join(' ')}" failed: ${err.code === 'ENOENT' ? 'there is no such command' : err.stderr}`, { cause: err })
  }
}
