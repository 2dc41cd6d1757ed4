/**
 * What has to hold. Each function returns what is wrong.
 */
import type { Moment } from './explorer.ts'
import type { PeerView } from './machine.ts'
import type { Ending } from './settler.ts'

/**
 * Two sessions are one, with opposite roles, or have nothing to do with each other; and its scheme is one that both speak
 */
export function sessionsMatch ({ views, configuration, forgotten }: Moment): string | undefined {
  const [ours, theirs] = views.map(({ sessions }) => sessions)
  const newest = [ours.at(-1), theirs.at(-1)]

  for (const session of [...ours, ...theirs]) {
    if (!configuration.peers.every(({ schemes }) => schemes.includes(session.scheme))) {
      return `Secured by ${session.scheme}, which one side does not speak`
    }
  }

  for (const a of ours) {
    for (const b of theirs) {
      if (a.initiation === b.initiation && (a.scheme !== b.scheme || a.role === b.role || a.responder !== b.responder)) {
        return `One session is ${a.scheme} for ${a.role} and ${b.scheme} for ${b.role}`
      }
    }
  }

  // of a session that the other side gave up or refused, one side may not know yet
  if (!forgotten && configuration.refuses !== true && newest[0] != null && newest[1] != null && newest[0].role === newest[1].role) {
    return `Both are secured as ${newest[0].role}`
  }
}

/**
 * As long as nobody has forgotten anything: what both have agreed on is the same, with opposite roles, and what the draft's
 * rules say
 */
export function agreementsMatch ({ views, configuration, forgotten }: Moment): string | undefined {
  // the newer of two sockets answers what may be of a peer that came back, and without one nothing comes of it
  const agreed = views.map(({ sockets }) => sockets.at(0)?.agreed)
  const { expected, peers } = configuration

  for (const [peer, agreement] of agreed.entries()) {
    if (agreement == null) {
      continue
    }

    const { scheme, role, simultaneous } = agreement
    const proposer = role === 'initiator' ? peer : 1 - peer
    const right = simultaneous
      ? { scheme: expected.simultaneous?.scheme, role: expected.simultaneous?.initiator === peer ? 'initiator' : 'responder' }
      : { scheme: expected.standard[proposer], role }

    if (scheme !== right.scheme || role !== right.role) {
      return `${peers[peer].name} agreed on ${scheme} as ${role}, but ought to on ${right.scheme} as ${right.role}`
    }
  }

  const [a, b] = agreed

  if (forgotten || a == null || b == null) {
    return
  }

  if (a.scheme !== b.scheme || a.role === b.role || a.simultaneous !== b.simultaneous) {
    return `They agreed on ${a.scheme} as ${a.role} and on ${b.scheme} as ${b.role}`
  }

  const [initiator, responder] = a.role === 'initiator' ? [a, b] : [b, a]

  if (!initiator.sendFirstFlight && !responder.hasFirstFlight) {
    return 'The initiator does not send its first flight, which the responder does not have'
  }
}

/**
 * A frame of an honest peer that has a meaning never counts as unexpected, unless somebody has forgotten something, or
 * failed
 */
export function nothingUnexpected (moment: Moment, verdict: string, before: PeerView, after: PeerView): string | undefined {
  if (verdict === 'invalid') {
    return 'An honest peer sent an invalid frame'
  }

  // whoever takes a late proposal for that of a peer that came back sends an accept for which nobody waits
  const beside = moment.views.some(({ sockets }) => sockets.length > 1)

  if (verdict === 'unexpected' && !moment.forgotten && !beside) {
    return 'An honest peer\'s frame was unexpected'
  }

  return noAgreementChanges(moment, verdict, before, after)
}

/**
 * An agreement is final, and so is a session, for as long as its socket is open
 */
export function noAgreementChanges (moment: Moment, verdict: string, before: PeerView, after: PeerView): string | undefined {
  const [old] = before.sockets
  const [now] = after.sockets

  // a socket that came or went is another
  if (before.sockets.length !== 1 || after.sockets.length !== 1 || old.agreed == null || now.agreed == null || verdict === '') {
    return
  }

  if (old.session != null && now.session == null) {
    return 'A session got lost'
  }

  if (old.agreed.scheme !== now.agreed.scheme || old.agreed.role !== now.agreed.role) {
    return `An agreement on ${old.agreed.scheme} as ${old.agreed.role} turned into one on ${now.agreed.scheme} as ${now.agreed.role}`
  }
}

/**
 * Without an attacker
 */
export function endsWell (moment: Moment, ending: Ending, cut: boolean): string | undefined {
  const { configuration, forgotten, dialled } = moment
  const inCommon = configuration.expected.simultaneous != null

  if (!inCommon && ending.outcome !== 'nothing') {
    return 'There is a session without a scheme in common'
  }

  const wrong = oneSided(moment, ending)

  if (wrong != null) {
    return wrong
  }

  if (cut) {
    return
  }

  if (configuration.restarts != null && ending.dialWaited) {
    return `A peer that came back waits in vain: it ends with ${describe(ending)}`
  }

  // somebody dialled, and who does not listen has dialled as well: before that nobody can answer
  const begun = dialled.includes(true) && configuration.peers.every(({ listens }, peer) => listens !== false || dialled[peer])

  if (!begun) {
    return
  }

  if (!inCommon && ending.waited) {
    return 'With nothing in common somebody waited in vain'
  }

  // patience, memory, and a network that works: there is no excuse
  if (inCommon && !forgotten && (ending.waited || ending.outcome !== 'session')) {
    return `It ends with ${describe(ending)}`
  }
}

/**
 * With an attacker: he may deny, but not more; and not even that once both have agreed, or by bad news that the truth outruns
 */
export function endsWellAttacked (moment: Moment, ending: Ending, cut: boolean): string | undefined {
  if (!moment.injected) {
    return endsWell(moment, ending, cut)
  }

  // a dial that joined what a forged proposal began waits in vain, although there is a session
  if (moment.configuration.injectsLate === true && !cut && ending.outcome !== 'session') {
    return `After an agreement a forgery prevents the session: it ends with ${describe(ending)}`
  }

  if (moment.configuration.graceLasts === true && moment.dialled.includes(true) && !cut && ending.outcome !== 'session') {
    return `Forged bad news end it, although the truth arrives in time: it ends with ${describe(ending)}`
  }

  return oneSided(moment, ending)
}

/**
 * No protocol can tell the sender of the last message whether it arrived. Here that is the initiator, whose finish secures
 * the responder: it alone may have a session that the other gave up.
 */
function oneSided ({ restarted, configuration }: Moment, { outcome, half }: Ending): string | undefined {
  if (outcome === 'half' && half?.role !== 'initiator' && !restarted && configuration.refuses !== true) {
    return 'The responder has a session, and the initiator has none'
  }
}

/**
 * What is agreed with the help of forged frames is what both speak, at least
 */
export function downgradeOnly ({ views, configuration }: Moment): string | undefined {
  for (const { sockets } of views) {
    for (const { agreed } of sockets) {
      if (agreed != null && !configuration.peers[views.findIndex(view => view.sockets === sockets)].schemes.includes(agreed.scheme)) {
        return `Agreed on ${agreed.scheme}, which is not spoken here`
      }
    }
  }
}

function describe ({ outcome, waited }: Ending): string {
  return `${outcome === 'half' ? 'a session on one side only' : outcome}${waited ? ', after waiting in vain' : ''}`
}
