// Fastify and node-postgres: node server.js, with DATABASE (a URL), PORT, POOL.
import rateLimit from '@fastify/rate-limit'
import Fastify, { LogController } from 'fastify'
import pg from 'pg'
import pino from 'pino'
import prometheus from 'prom-client'
import { serve } from '../fastify-routes.mjs'

const pool = new pg.Pool({
  connectionString: process.env.DATABASE,
  max: Number(process.env.POOL ?? 20)
})

// A statement with a name is prepared once on each connection.
const INSERT_EVENT = `
  INSERT INTO events (partner, type, charger_id, vehicle_id, state_of_charge, timestamp)
  SELECT c.partner, $2, c.id, v.id, $5, $6
    FROM chargers c JOIN vehicles v ON v.partner = c.partner
   WHERE c.partner = $1 AND c.id = $3 AND v.id = $4
  ON CONFLICT (partner, timestamp, vehicle_id, type, charger_id) DO NOTHING
  RETURNING id`

const SAME_EVENT = `
  SELECT id, state_of_charge AS "stateOfCharge"
    FROM events
   WHERE partner = $1 AND type = $2 AND charger_id = $3 AND vehicle_id = $4 AND timestamp = $5`

const store = {
  async keys () {
    return (await pool.query('SELECT hash, partner FROM api_keys')).rows
  },
  async charger (partner, id) {
    const { rows } = await pool.query({
      name: 'charger',
      text: 'SELECT body::text FROM chargers WHERE partner = $1 AND id = $2',
      values: [partner, id]
    })
    return rows.length === 1 ? rows[0].body : null
  },
  async addEvent (partner, event) {
    const { rows } = await pool.query({
      name: 'event',
      text: INSERT_EVENT,
      values: [
        partner, event.type, event.chargerId, event.vehicleId,
        event.stateOfCharge ?? null, new Date(event.timestamp)
      ]
    })
    return rows.length === 1 ? rows[0].id : null
  },
  async sameEvent (partner, event) {
    const { rows } = await pool.query({
      name: 'same',
      text: SAME_EVENT,
      values: [
        partner, event.type, event.chargerId, event.vehicleId, new Date(event.timestamp)
      ]
    })
    return rows[0] ?? null
  },
  close: () => pool.end()
}

await serve(store, { Fastify, LogController, pino, prometheus, rateLimit })
