// Fastify and better-sqlite3: node server.js, with DATABASE (a file) and PORT.
import Database from 'better-sqlite3'
import rateLimit from '@fastify/rate-limit'
import Fastify, { LogController } from 'fastify'
import pino from 'pino'
import prometheus from 'prom-client'
import { uuidv7 } from 'uuidv7'
import { serve } from '../fastify-routes.mjs'

const db = new Database(process.env.DATABASE, { fileMustExist: true })
db.pragma('journal_mode = WAL')
db.pragma('synchronous = FULL') // every commit is on disk before it returns
db.pragma('busy_timeout = 5000')

const allKeys = db.prepare('SELECT hash, partner FROM api_keys')
const oneCharger = db.prepare('SELECT body FROM chargers WHERE partner = ? AND id = ?').pluck()
const insertEvent = db.prepare(`
  INSERT INTO events (partner, id, type, charger_id, vehicle_id, state_of_charge, timestamp)
  SELECT c.partner, @id, @type, c.id, v.id, @stateOfCharge, @timestamp
    FROM chargers c JOIN vehicles v ON v.partner = c.partner
   WHERE c.partner = @partner AND c.id = @chargerId AND v.id = @vehicleId
  ON CONFLICT (partner, timestamp, vehicle_id, type, charger_id) DO NOTHING`)
const sameEvent = db.prepare(`
  SELECT id, state_of_charge AS stateOfCharge
    FROM events
   WHERE partner = @partner AND timestamp = @timestamp AND vehicle_id = @vehicleId
     AND type = @type AND charger_id = @chargerId`)

const store = {
  keys: () => allKeys.all(),
  charger: (partner, id) => oneCharger.get(partner, id) ?? null,
  // One statement outside BEGIN is one transaction.
  addEvent (partner, event) {
    const id = uuidv7()
    const { changes } = insertEvent.run({ stateOfCharge: null, ...event, partner, id })
    return changes === 1 ? id : null
  },
  sameEvent: (partner, event) => sameEvent.get({ ...event, partner }) ?? null,
  close: () => db.close()
}

await serve(store, { Fastify, LogController, pino, prometheus, rateLimit })
