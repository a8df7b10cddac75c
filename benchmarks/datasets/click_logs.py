"""Three public click logs as services of one event log: what is history in each and what is label.

video   KuaiRand-Pure. History: up to 50 videos watched before the log, whose order alone is known
        (a second apart, the last at its true time), and everything shown until `video_until`
        (2022-05-01 in China), clicked or not. Labels: what was shown from then on; it is no event.
news    A sample of MIND-small. History: the clicks before a user's first impression, whose order
        alone is known (seconds of 2019-10-12, before all impressions). Labels: the impressions,
        none of which is an event.
globo   Globo.com's 16 days of clicks, by session, of a third of the users, by hash of their ids:
        all 2,988,181 events nearly double the corpus. All are events; what is asked lies after
        `globo_until` (2017-10-13 in Brasília), which pretraining ends at. The 3,595 events after
        the last full day are left out.

`clicked`, `long_view`, `play_time_ms` and `tab` are known of what KuaiRand's log shows, `session`,
`environment`, `device`, `os`, `country`, `region` and `referrer` of Globo's clicks; null elsewhere.
"""

GLOBO_END = 1_508_209_200  # 2017-10-17 00:00 in Brasília: 16 days after the first click

EVENTS = """
    SELECT 'ku:' || user_id AS user_id, 'video' AS service, item_id::VARCHAR AS item_id,
        last_ts - (count(*) OVER (PARTITION BY user_id) - 1 - position)::DOUBLE AS timestamp
    FROM '{data}/kuairand_pure/history_watch.parquet'
    UNION ALL BY NAME
    SELECT 'ku:' || user_id AS user_id, 'video' AS service, item_id::VARCHAR AS item_id,
        time_ms / 1000 AS timestamp, clicked = 1 AS clicked, long_view = 1 AS long_view,
        play_time_ms::DOUBLE AS play_time_ms, service AS tab
    FROM '{data}/kuairand_pure/impressions.parquet' WHERE time_ms / 1000 < {video_until}
    UNION ALL BY NAME
    SELECT 'mi:' || user_id AS user_id, 'news' AS service, item_id,
        epoch(TIMESTAMP '2019-10-12') + timestamp AS timestamp
    FROM '{data}/mind_sample/events.parquet'
    UNION ALL BY NAME
    SELECT 'gl:' || user_id AS user_id, 'globo' AS service, item_id, timestamp, session,
        environment::VARCHAR AS environment, device::VARCHAR AS device, os::VARCHAR AS os,
        country::VARCHAR AS country, region::VARCHAR AS region, referrer::VARCHAR AS referrer
    FROM '{data}/globo_clicks/events.parquet'
    WHERE timestamp < {globo_end} AND md5_number_upper('gl:' || user_id) % 3 = 0
"""

# MIND's 28,690 titles that nobody of the sample read or was shown stay out. KuaiRand's tags are
# numbers, such as "39,68"; as words they are no digits of anything else.
ITEMS = """
    SELECT 'video', item_id::VARCHAR, 'tag' || replace(tag, ',', ' tag')
    FROM '{data}/kuairand_pure/items.parquet'
    UNION ALL
    SELECT 'news', item_id, title || '. ' || category FROM '{data}/mind_sample/items.parquet'
    SEMI JOIN (SELECT item_id FROM '{data}/mind_sample/events.parquet'
        UNION SELECT item_id FROM '{data}/mind_sample/impressions.parquet') AS met USING (item_id)
    UNION ALL
    SELECT DISTINCT 'globo', item_id, item_id FROM events WHERE service = 'globo'
"""

TABLES = {
    "video_impressions": """
        SELECT 'ku:' || user_id AS user_id, item_id::VARCHAR AS item_id,
            time_ms / 1000 AS timestamp, service AS tab, clicked, long_view
        FROM '{data}/kuairand_pure/impressions.parquet' ORDER BY ALL
    """,
    "video_users": """
        SELECT 'ku:' || user_id AS user_id, * EXCLUDE (user_id)
        FROM '{data}/kuairand_pure/users.parquet' ORDER BY user_id
    """,
    "video_items": """
        SELECT item_id::VARCHAR AS item_id, author_id::VARCHAR AS author, video_type, upload_type,
            epoch(upload_dt::TIMESTAMP) AS uploaded, video_duration, music_type, tag
        FROM '{data}/kuairand_pure/items.parquet' ORDER BY item_id
    """,
    "news_impressions": """
        SELECT impression, 'mi:' || user_id AS user_id, item_id, timestamp, clicked::INT AS clicked
        FROM '{data}/mind_sample/impressions.parquet' ORDER BY ALL
    """,
    "news_items": """
        SELECT item_id, category, title FROM '{data}/mind_sample/items.parquet' ORDER BY item_id
    """,
}
